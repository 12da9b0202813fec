"""Parcels: buffers for one reader, which their sender can call back."""

import os
import pickle

import numpy as np
import pytest
from parcel_tools import (  # noqa: F401
    LARGE,
    LEAST,
    add_one,
    carry,
    leases,
    no_lease_is_left,
    open_and_keep,
)
from support import KINDS, Remote, check_python, in_fork, settle

import sharedmem
from sharedmem import StaleHandleError
from sharedmem._transfers import parcels
from sharedmem._transfers.parcels import drop_handle, make_parcel, open_handle

# -- by handle, carried, as bytes


@pytest.mark.parametrize("kind", KINDS)
def test_shared_buffers_go_by_handle_and_large_private_ones_are_carried(kind):
    shared = sharedmem.ones(10, "u1")  # of any size
    private = np.ones(LARGE, "u1")
    with Remote(kind) as remote:
        parcel = make_parcel([shared, private, np.ones(LEAST - 1, "u1")], LEAST)
        assert [handle is not None for handle in parcel.handles] == [True, True, False]
        assert (parcel.nbytes, parcel.carried, parcel.refused) == (LARGE + 10, LARGE, None)
        parcel.sent()
        assert not parcel.delivered
        assert remote.call(open_and_keep, "shared", parcel.handles[0]) == (False, True)
        assert remote.call(open_and_keep, "private", parcel.handles[1]) == (True, True)
        assert parcel.delivered
        remote.call(add_one, "shared")
        remote.call(add_one, "private")
        assert (shared == 2).all()
        assert (private == 1).all()


def test_the_least_size_is_carried_and_one_byte_less_is_not():
    for nbytes, carried in ((LEAST, True), (LEAST - 1, False)):
        parcel = make_parcel([bytes(nbytes), bytearray(nbytes), np.ones(nbytes, "u1")], LEAST)
        assert [handle is not None for handle in parcel.handles] == [carried] * 3


def test_a_small_part_of_a_carried_array_is_not_a_shared_array():
    a = carry(np.ones(LARGE, "u1"))
    assert make_parcel([a[:2000]], LEAST).handles == [None]
    assert make_parcel([a], None).handles == [None]


def test_without_a_least_size_nothing_is_carried():
    shared = sharedmem.ones(10, "u1")
    parcel = make_parcel([np.ones(LARGE, "u1"), shared], None)
    assert [handle is None for handle in parcel.handles] == [True, False]
    assert parcel.carried == 0


@pytest.mark.parametrize(
    "buffer",
    [
        np.arange(LARGE, dtype=">i8"),
        bytearray(LARGE),
        bytes(LARGE),
        memoryview(np.ones((100, 1000))),
        memoryview(sharedmem.ones((100, 1000), "f4")),
        pickle.PickleBuffer(np.ones(LARGE)),
    ],
    ids=["big-endian", "bytearray", "bytes", "of two axes", "shared", "PickleBuffer"],
)
def test_any_contiguous_buffer(buffer):
    parcel = make_parcel([buffer], LEAST)
    parcel.sent()
    opened = open_handle(parcel.handles[0])
    assert opened.tobytes() == memoryview(buffer).tobytes()
    assert opened.flags.writeable != memoryview(buffer).readonly


@pytest.mark.parametrize("buffer", [b"", bytearray(), np.ones(0), sharedmem.ones(0)])
def test_an_empty_buffer_travels_as_bytes(buffer):
    assert make_parcel([buffer], 1).handles == [None]


def test_buffers_that_are_not_contiguous_are_rejected_and_nothing_is_kept():
    before = leases()
    with pytest.raises(TypeError):
        make_parcel([sharedmem.ones(10), "text"], LEAST)
    with pytest.raises((ValueError, BufferError)):
        make_parcel([sharedmem.ones(10), memoryview(np.ones((300, 300)))[::2]], LEAST)
    settle()
    assert leases() <= before  # those of earlier tests may end meanwhile


def test_part_of_a_shared_array_arrives_as_that_part_of_the_same_memory():
    a = sharedmem.zeros(100, "u1")
    parcel = make_parcel([memoryview(a)[10:20]], LEAST)
    parcel.sent()
    open_handle(parcel.handles[0])[:] = 1
    assert a.sum() == 10
    assert a[10:20].all()


def test_a_protected_array_arrives_protected():
    a = sharedmem.readonly(sharedmem.ones(100, "u1"))
    parcel = make_parcel([a], LEAST)
    parcel.sent()
    opened = open_handle(parcel.handles[0])
    assert not opened.flags.writeable
    with pytest.raises(ValueError):
        opened.setflags(write=True)


def test_within_pickle_by_value_nothing_goes_by_handle():
    with sharedmem.pickle_by_value():
        assert make_parcel([sharedmem.ones(10)], None).handles == [None]


# -- calling back


def test_a_parcel_that_was_not_opened_can_be_called_back():
    a = sharedmem.ones(LARGE, "u1")
    before = sharedmem.stats()
    parcel = make_parcel([a, np.ones(LARGE, "u1")], LEAST)
    parcel.sent()
    assert leases() == before["leases"] + 2
    opened = open_handle(parcel.handles[0])
    parcel.revoke()
    parcel.revoke()
    assert parcel.delivered
    assert leases() == before["leases"]
    assert opened.all()
    with pytest.raises(StaleHandleError):
        open_handle(parcel.handles[1])
    del opened
    assert sharedmem.stats()["live_bytes"] == before["live_bytes"]


def test_a_parcel_that_was_not_sent_is_called_back_with_it():
    before = leases()
    handle = make_parcel([np.ones(LARGE, "u1")], LEAST).handles[0]
    assert leases() <= before  # those of earlier tests may end meanwhile
    with pytest.raises(StaleHandleError):
        open_handle(handle)


def test_a_parcel_that_was_sent_and_dropped_is_its_readers():
    parcel = make_parcel([np.full(LARGE, 7, "u1")], LEAST)
    parcel.sent()
    handle = parcel.handles[0]
    del parcel
    assert (open_handle(handle) == 7).all()
    with pytest.raises(StaleHandleError):
        open_handle(handle)


def test_a_reader_that_is_killed_with_the_handles_leaves_them_to_be_called_back():
    with Remote("spawn") as remote:
        assert remote.call(os.getpid) == remote.pid
        parcel = make_parcel([np.ones(LARGE, "u1")], LEAST)
        parcel.sent()
        remote.kill()
    assert not parcel.delivered
    parcel.revoke()
    assert parcel.delivered


def test_a_forked_child_calls_nothing_back():
    parcel = make_parcel([np.full(LARGE, 3, "u1")], LEAST)
    parcel.sent()

    def child():
        parcel.revoke()

    assert in_fork(child) == 0
    assert (open_handle(parcel.handles[0]) == 3).all()


def test_calling_back_works_for_memory_of_a_foreign_arena():
    code = """
    import sys
    import sharedmem
    from sharedmem._transfers.parcels import make_parcel, open_handle
    sharedmem.ones(3)
    a = open_handle(bytes.fromhex(sys.argv[1]))
    assert sharedmem.stats()["attached_arenas"] == 2, sharedmem.stats()
    parcel = make_parcel([a], None)
    parcel.sent()
    del a
    assert not parcel.delivered
    parcel.revoke()
    assert parcel.delivered
    print(sharedmem.stats()["attached_arenas"])
    """
    a = sharedmem.ones(100, "u1")
    before = leases()
    parcel = make_parcel([a], None)
    parcel.sent()
    assert check_python(code, parcel.handles[0].hex()) == "1"
    assert leases() <= before  # those of earlier tests may end meanwhile


def test_a_handle_can_be_consumed_unopened():
    parcel = make_parcel([np.ones(LARGE, "u1")], LEAST)
    parcel.sent()
    drop_handle(parcel.handles[0])
    assert parcel.delivered
    drop_handle(parcel.handles[0])
    drop_handle(b"C")
    drop_handle(b"")


@pytest.mark.parametrize("handle", [b"", b"S", b"C", b"X123", b"S" + bytes(100)])
def test_invalid_handles_are_rejected(handle):
    with pytest.raises(ValueError):
        open_handle(handle)


def test_a_handle_without_its_mark_is_refused_and_not_consumed():
    parcel = make_parcel([np.full(LARGE, 3, "u1")], LEAST)
    parcel.sent()
    handle = parcel.handles[0]
    with pytest.raises(ValueError, match="not the handle of a parcel"):
        open_handle(b"X" + handle[1:])
    assert (open_handle(handle) == 3).all()


def test_nothing_is_raised_where_no_more_may_be_in_flight():
    code = """
    import numpy as np
    from sharedmem._transfers.parcels import make_parcel
    import sharedmem
    parcel = make_parcel([np.ones(1 << 20, "u1"), np.ones(1 << 20, "u1"), sharedmem.ones(1 << 20, "u1")], 1)
    print([handle is not None for handle in parcel.handles], type(parcel.refused).__name__, parcel.refused)
    """
    said = check_python(code, SHAREDMEM_IN_FLIGHT_LIMIT="512KiB")
    assert said.startswith("[True, False, False] MemoryError")
    assert "SHAREDMEM_IN_FLIGHT_LIMIT" in said


def test_why_shared_arrays_have_no_handles_is_reported_too():
    code = """
    from sharedmem._transfers.parcels import make_parcel
    import sharedmem
    parcel = make_parcel([sharedmem.ones(1 << 20, "u1"), sharedmem.ones(1 << 20, "u1")], None)
    print([handle is not None for handle in parcel.handles], type(parcel.refused).__name__, parcel.refused)
    """
    said = check_python(code, SHAREDMEM_IN_FLIGHT_LIMIT="512KiB")
    assert said.startswith("[True, False] MemoryError")
    assert "SHAREDMEM_IN_FLIGHT_LIMIT" in said


def test_nothing_is_raised_where_the_arena_is_full():
    code = """
    import resource
    import numpy as np
    from sharedmem._transfers.parcels import make_parcel
    buffers = [np.ones(64 << 20, "u1"), np.ones(1 << 20, "u1")]
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (16 << 20), -1))
    parcel = make_parcel(buffers, 1)
    print([handle is not None for handle in parcel.handles], type(parcel.refused).__name__)
    """
    assert check_python(code, SHAREDMEM_ARENA_SIZE="32MiB") == "[False, True] MemoryError"


# -- how large


@pytest.mark.parametrize(
    ("text", "least"), [("", LEAST), ("0", None), ("64KiB", 65536), ("1", 1), (" 1MiB ", 1 << 20)]
)
def test_the_size_from_which_on_buffers_are_carried(monkeypatch, text, least):
    monkeypatch.setenv("SHAREDMEM_CARRY", text)
    assert parcels.least_carried() == least


@pytest.mark.parametrize("text", ["-1", "many", "1 parsec"])
def test_an_invalid_size_is_an_error_that_names_the_variable(monkeypatch, text):
    monkeypatch.setenv("SHAREDMEM_CARRY", text)
    with pytest.raises(ValueError, match="SHAREDMEM_CARRY"):
        parcels.least_carried()
