"""What was carried by a parcel belongs to its reader: when it is sent on, it is copied and not shared."""

import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
from parcel_tools import (  # noqa: F401
    LARGE,
    LEAST,
    add_one,
    carry,
    forget,
    no_lease_is_left,
    open_and_keep,
    parcel_of_kept,
    total,
)
from support import Remote, in_fork

import sharedmem
from sharedmem._transfers.parcels import is_carried, make_parcel, open_handle

# -- sent on


def wrapped(a):
    """Arrays over the same memory, made in ways that keep nothing of the base but its address."""
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
def test_share_and_dumps_copy_it(send):
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


def test_a_forked_child_shares_it_with_its_parent_and_copies_it_when_it_sends_it_on():
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
