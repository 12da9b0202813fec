"""Parcels: buffers for one reader, which their sender can call back; and who may write into what arrives."""

import gc
import os
import pickle
import signal
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
from support import KINDS, Remote, check_python, in_fork, settle

import sharedmem
from sharedmem import StaleHandleError
from sharedmem._transfers import parcels, probing
from sharedmem._transfers.parcels import drop_handle, is_carried, make_parcel, open_handle

LEAST = 32 << 10
LARGE = 1 << 20


def leases():
    return sharedmem.stats()["leases"]


@pytest.fixture(autouse=True)
def no_lease_is_left():
    sharedmem.revoke(0)  # messages of earlier tests, which keep arenas attached
    before = leases()
    yield
    settle()
    assert leases() <= before  # those of earlier tests may go meanwhile


def carry(array):
    """What another process would get of a private array, in this one."""
    parcel = make_parcel([array], LEAST)
    parcel.sent()
    return open_handle(parcel.handles[0])


# What the reader does; in another process.
OPENED = {}


def open_and_keep(key, handle):
    OPENED[key] = open_handle(handle)
    return is_carried(OPENED[key]), OPENED[key].flags.writeable


def add_one(key):
    OPENED[key] += 1


def total(key):
    return int(OPENED[key].sum(dtype="u8"))


def parcel_of_kept(key):
    """A parcel that is not called back when this process forgets it, and how much of it was copied."""
    parcel = make_parcel([OPENED[key]], LEAST)
    parcel.sent()
    return parcel.handles[0], parcel.carried


def forget(key):
    del OPENED[key]


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


def test_a_small_part_of_what_was_carried_is_no_shared_array():
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
    assert leases() <= before  # those of earlier tests may go meanwhile


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
    assert leases() <= before  # those of earlier tests may go meanwhile
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
        remote.signal(signal.SIGKILL)
        remote.wait()
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
    assert leases() <= before  # those of earlier tests may go meanwhile


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


def test_why_shared_arrays_have_no_handles_is_told_too():
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


# -- what was carried belongs to its reader


def wrapped(a):
    """Ways to lose every trace of a base but the address."""
    yield "itself", a
    yield "view", a[::2]
    yield "other dtype", a.view("f8")
    yield "from a memoryview", np.frombuffer(memoryview(a), "u1")
    yield "by DLPack", np.from_dlpack(a)
    yield "SharedArray", a.view(sharedmem.SharedArray)


def pickles(a):
    yield "plain pickle", pickle.dumps(a)
    yield "protocol 5", pickle.dumps(a, 5)
    yield "multiprocessing", bytes(ForkingPickler.dumps(a))
    yield "a list, by multiprocessing", bytes(ForkingPickler.dumps([a]))


def first(loaded):
    return loaded[0] if isinstance(loaded, list) else loaded


def test_no_pickle_of_it_shares_it():
    a = carry(np.ones(LARGE, "u1"))
    for name, each in wrapped(a):
        for way, pickled in pickles(each):
            loaded = first(pickle.loads(pickled))
            assert not np.shares_memory(loaded, a), (name, way)
            assert np.array_equal(loaded, each), (name, way)
            assert loaded.flags.writeable or not each.flags.writeable  # by DLPack: of some versions of NumPy


def test_no_message_of_the_transport_shares_it():
    a = carry(np.ones(LARGE, "u1"))
    with sharedmem.transport():
        before = sharedmem.stats()["transport"]["messages"]
        for name, each in wrapped(a):
            loaded = pickle.loads(ForkingPickler.dumps([each]))[0]
            assert not np.shares_memory(loaded, a), name
            loaded[0] = 5
        assert sharedmem.stats()["transport"]["messages"] > before  # carried again, not sent as bytes
    assert (a == 1).all()


@pytest.mark.parametrize("send", [sharedmem.share, lambda obj: sharedmem.loads(sharedmem.dumps(obj))])
def test_share_and_messages_of_ones_own_copy_it(send):
    a = carry(np.ones(LARGE, "u1"))
    for _, each in wrapped(a):
        sent = send({"a": each})["a"]
        sent[0] = 5
    assert (a == 1).all()


def test_queues_copy_it():
    a = carry(np.ones(LARGE, "u1"))
    queue = sharedmem.Queue()
    queue.put(a)
    queue.put([a])
    queue.get()[0] = 5
    queue.get()[0][0] = 5
    assert (a == 1).all()


def test_asshared_copies_it_and_latest_puts_a_copy():
    a = carry(np.ones(LARGE, "u1"))
    assert sharedmem.is_shared(a)
    shared = sharedmem.asshared(a)
    assert not np.shares_memory(shared, a)
    assert np.shares_memory(pickle.loads(pickle.dumps(shared)), shared)
    latest = sharedmem.Latest()
    latest.put(a)
    assert not np.shares_memory(latest.get()[1], a)
    del latest


def test_the_next_reader_gets_a_copy_of_its_own():
    with Remote("spawn") as first_reader, Remote("spawn") as second_reader:
        parcel = make_parcel([np.ones(LARGE, "u1")], LEAST)
        parcel.sent()
        first_reader.call(open_and_keep, "a", parcel.handles[0])
        handle, copied = first_reader.call(parcel_of_kept, "a")
        assert copied == LARGE
        assert second_reader.call(open_and_keep, "a", handle) == (True, True)
        second_reader.call(add_one, "a")
        assert second_reader.call(total, "a") == 2 * LARGE
        assert first_reader.call(total, "a") == LARGE


def test_read_only_it_is_passed_on_without_a_copy():
    with Remote("spawn") as first_reader, Remote("spawn") as second_reader:
        parcel = make_parcel([bytes(LARGE)], LEAST)
        parcel.sent()
        assert first_reader.call(open_and_keep, "a", parcel.handles[0]) == (False, False)
        handle, copied = first_reader.call(parcel_of_kept, "a")
        assert copied == 0
        assert second_reader.call(open_and_keep, "a", handle) == (False, False)
        first_reader.call(forget, "a")
        assert second_reader.call(total, "a") == 0


def test_a_read_only_view_of_it_is_copied_since_it_may_be_written_through_another():
    a = carry(np.ones(LARGE, "u1"))
    view = a[:]
    view.setflags(write=False)
    assert is_carried(view)
    loaded = pickle.loads(pickle.dumps(view))
    assert not np.shares_memory(loaded, a)
    parcel = make_parcel([view], LEAST)
    assert parcel.carried == LARGE


def test_the_note_belongs_to_the_block_and_not_to_the_address():
    a = carry(np.ones(LARGE, "u1"))
    address = a.ctypes.data
    kept = []
    del a
    for _ in range(64):  # the block is used again
        kept.append(sharedmem.ones(LARGE, "u1"))
        if kept[-1].ctypes.data == address:
            break
    else:
        pytest.skip("the block was not used again")
    assert not is_carried(kept[-1])
    handle = pickle.dumps(kept[-1])
    assert len(handle) < 1000
    loaded = pickle.loads(handle)
    assert np.shares_memory(loaded, kept[-1])
    assert not is_carried(loaded)


def test_a_forked_child_shares_it_with_its_parent_and_copies_it_too_when_it_passes_it_on():
    a = carry(np.ones(LARGE, "u1"))

    def child():
        assert is_carried(a)
        assert not np.shares_memory(pickle.loads(pickle.dumps(a)), a)
        a[0] = 9

    assert in_fork(child) == 0
    assert a[0] == 9


# -- protocol 5


@pytest.mark.parametrize(
    "make",
    [
        lambda: sharedmem.ones((50, 40)),
        lambda: sharedmem.ones((50, 40)).T,
        lambda: sharedmem.ones(10, "i2, f8"),
    ],
    ids=["C", "Fortran", "fields"],
)
def test_by_value_with_buffers_gives_the_memory_itself(make):
    a = make()
    buffers = []
    with sharedmem.pickle_by_value():
        data = pickle.dumps({"a": a}, 5, buffer_callback=buffers.append)
    assert len(buffers) == 1
    assert np.shares_memory(np.frombuffer(buffers[0].raw(), "u1"), a)
    loaded = pickle.loads(data, buffers=buffers)["a"]
    assert type(loaded) is np.ndarray
    assert np.shares_memory(loaded, a)
    assert np.array_equal(loaded, a)


def test_by_value_with_handles_in_place_of_buffers_gives_the_memory_itself():
    a = sharedmem.ones((50, 40))
    buffers = []
    with sharedmem.pickle_by_value():
        data = pickle.dumps({"a": a}, 5, buffer_callback=buffers.append)
    parcel = make_parcel(buffers, None)
    parcel.sent()
    loaded = pickle.loads(data, buffers=[open_handle(handle) for handle in parcel.handles])["a"]
    loaded += 1
    assert (a == 2).all()


def test_by_value_with_buffers_of_what_was_carried():
    a = carry(np.ones(LARGE, "u1"))
    buffers = []
    data = pickle.dumps({"a": a}, 5, buffer_callback=buffers.append)
    assert make_parcel(buffers, LEAST).carried == LARGE
    assert np.shares_memory(pickle.loads(data, buffers=buffers)["a"], a)


# -- how large


@pytest.mark.parametrize(
    ("text", "least"), [("", LEAST), ("0", None), ("64KiB", 65536), ("1", 1), (" 1MiB ", 1 << 20)]
)
def test_the_size_from_which_on_buffers_are_carried(monkeypatch, text, least):
    monkeypatch.setenv("SHAREDMEM_CARRY", text)
    assert parcels.least_carried() == least


@pytest.mark.parametrize("text", ["-1", "many", "1 parsec"])
def test_a_size_that_means_nothing_is_an_error_that_names_the_variable(monkeypatch, text):
    monkeypatch.setenv("SHAREDMEM_CARRY", text)
    with pytest.raises(ValueError, match="SHAREDMEM_CARRY"):
        parcels.least_carried()


# -- probes

ANSWER = """
import pickle, sys
from sharedmem._transfers.probing import load_probe
print(load_probe(pickle.loads(bytes.fromhex(sys.argv[1]))) is not None)
"""


def probe_as_text(**changes):
    return pickle.dumps({**probing.make_probe(), **changes}).hex()


@pytest.mark.parametrize("related", [True, False])
def test_a_probe_can_be_loaded_by_processes_in_the_same_place(related):
    assert check_python(ANSWER, probe_as_text(), related=related) == "True"


def test_a_probe_is_not_loaded_in_another_place():
    assert check_python(ANSWER, probe_as_text(place="elsewhere")) == "False"


def test_a_probe_with_other_contents_is_refused():
    with pytest.raises(ValueError, match="does not contain what was written"):
        probing.load_probe({**probing.make_probe(), "content": bytes(64)})


def test_a_probe_whose_memory_cannot_be_had_is_refused():
    probe = probing.make_probe()
    with pytest.raises(ValueError):
        probing.load_probe({**probe, "handle": probe["handle"][:-20]})


def test_a_probe_of_a_forked_child_is_its_own():
    mine = probing.make_probe()

    def child():
        signal.alarm(30)
        assert probing.make_probe()["content"] != mine["content"]

    assert in_fork(child) == 0
    assert probing.make_probe() == mine
    with probing._lock:  # as another thread may have it
        assert in_fork(child) == 0
    assert sharedmem.is_shared(probing.load_probe(mine))  # and keeps the arena attached


def test_a_probe_is_a_handle_whatever_is_pickled_around_it(monkeypatch):
    # Dask shakes hands in the middle of whatever the program does.
    for around in (sharedmem.pickle_by_value(), pytest.MonkeyPatch.context()):
        monkeypatch.setattr(probing, "_known", None)
        with around:
            assert probing.load_probe(probing.make_probe()) is not None

    class Asking:
        def __reduce__(self):
            return dict, (), None, None, iter(probing.make_probe().items())

    monkeypatch.setattr(probing, "_known", None)
    with sharedmem.pickle_by_value():
        probing.make_probe()
        assert len(pickle.dumps(sharedmem.ones(LARGE, "u1"))) > LARGE  # it is as it was around it

    before = leases()
    monkeypatch.setattr(probing, "_known", None)
    message = ForkingPickler.dumps([Asking(), sharedmem.ones(10)])
    assert leases() == before + 1  # that of the array, which is kept by its message
    probe, array = pickle.loads(message)
    assert array.sum() == 10
    assert probing.load_probe(probe) is not None
    assert probing.load_probe(probe) is not None  # as often as one likes: no message has taken it along
    assert leases() <= before  # those of earlier tests may go meanwhile


def test_a_probe_of_another_place_is_made_anew(monkeypatch):
    mine = probing.make_probe()
    monkeypatch.setattr(sharedmem, "place", lambda: "elsewhere")
    other = probing.make_probe()
    assert (other["place"], probing.make_probe()) == ("elsewhere", other)
    assert other["content"] != mine["content"]
    monkeypatch.undo()
    assert probing.load_probe(other) is None
    gc.collect()
    assert probing.load_probe(probing.make_probe()) is not None


def test_probes_take_no_leases():
    before = leases()
    for _ in range(3):
        assert probing.load_probe(probing.make_probe()) is not None
    assert leases() <= before  # those of earlier tests may go meanwhile
