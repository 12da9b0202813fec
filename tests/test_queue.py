"""Queues: the interface of multiprocessing's, and what messages carry."""

import asyncio
import gc
import pickle
import queue as standard
import threading
import time

import numpy as np
import pytest
import workers
from support import KINDS, TIMEOUT, Remote

import sharedmem


class Unpicklable:
    def __reduce__(self):
        raise AttributeError("not me")


class Unloadable:
    def __reduce__(self):
        return int, ("no number",)


class Counting(sharedmem.Queue):
    """A subclass with attributes and a method of its own."""

    def get_twice(self):
        return self.get(), self.get()


def double(source, target, count):
    for _ in range(count):
        target.put(source.get(timeout=TIMEOUT) * 2)


def put_all(target, objects):
    target.put_many(objects)


@pytest.mark.parametrize(
    "value",
    [None, 0, True, -1.5, "text", b"", b"x" * 5000, (1, 2, 3), ((1, 2), [3]), {"a": {1}}, range(3), 1 << 70],
    ids=lambda v: repr(v)[:20],
)
def test_anything_that_can_be_pickled_arrives(value):
    q = sharedmem.Queue()
    q.put(value)
    got = q.get()
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize("size", [4000, 4096, 4097, 100_000, 50_000_000])
def test_messages_of_any_length_arrive(size):
    q = sharedmem.Queue()
    data = np.random.default_rng(size).bytes(size)
    q.put((data, size))
    assert q.get() == (data, size)


def test_it_is_first_in_first_out_while_it_grows_and_shrinks():
    q = sharedmem.Queue()
    number = 0
    for count in (3, 50_000, 10):
        for i in range(count):
            q.put((number + i, b"." * (i % 300)))
        assert len(q) == q.qsize() == count
        for i in range(count):
            assert q.get() == (number + i, b"." * (i % 300))
        number += count
    assert q.empty()
    assert sharedmem.stats()["bytes_in_flight"] < 8 << 20


def test_arrays_are_the_same_memory():
    q = sharedmem.Queue()
    a = sharedmem.zeros((3, 4))
    q.put(a)
    q.put({"view": a[1:, ::-1], "again": a[0], "plain": np.arange(3)})
    got, both = q.get(), q.get()
    got[1, 3] = 7
    assert a[1, 3] == 7
    assert both["view"][0, 0] == 7
    assert sharedmem.is_shared(both["again"])
    assert not sharedmem.is_shared(both["plain"])


def test_an_array_lives_in_the_queue_without_its_sender_and_is_freed_with_the_queue():
    gc.collect()  # what other tests left in cycles
    sharedmem.revoke(0)  # messages that other tests did not load
    before = sharedmem.stats()["shared_blocks"]
    q = sharedmem.Queue()
    for i in range(5):
        q.put([sharedmem.full(100_000, i)])
    gc.collect()
    assert sharedmem.collect(leases=True) == 0
    assert sharedmem.revoke(0) == 0
    assert q.get()[0][-1] == 0
    inner = sharedmem.Queue()
    inner.put(sharedmem.ones(1000))
    q.put(inner)
    del inner, q
    assert sharedmem.stats()["leases"] == 0
    assert sharedmem.stats()["shared_blocks"] == before


def test_a_queue_in_a_queue_is_the_same_one():
    outer, inner = sharedmem.Queue(), sharedmem.SimpleQueue()
    outer.put(inner)
    outer.get().put("hello")
    assert inner.get() == "hello"


def test_a_bound_is_kept():
    q = sharedmem.Queue(2)
    assert q.maxsize == 2
    assert not q.full()
    q.put(1)
    q.put(2)
    assert q.full()
    for call in (
        lambda: q.put_nowait(3),
        lambda: q.put(3, False, 99),
        lambda: q.put(3, timeout=0.02),
        lambda: q.put(3, timeout=-1),
    ):
        with pytest.raises(standard.Full):
            call()
    assert [q.get(), q.get()] == [1, 2]
    for call in (
        q.get_nowait,
        lambda: q.get(timeout=0.02),
        lambda: q.get(True, -1),
        lambda: q.get_many(3, False),
    ):
        with pytest.raises(standard.Empty):
            call()
    assert sharedmem.Queue(-3).maxsize == 0


def test_what_does_not_fit_gives_its_arrays_back():
    q = sharedmem.Queue(1)
    q.put(0)
    before = sharedmem.stats()["leases"]
    with pytest.raises(standard.Full):
        q.put([sharedmem.ones(10), b"x" * 10_000], block=False)
    assert sharedmem.stats()["leases"] == before


def test_several_at_once():
    q = sharedmem.Queue(5)
    q.put_many(iter(range(4)))
    with pytest.raises(standard.Full) as caught:
        q.put_many("abc", timeout=0.01)
    assert caught.value.put_before == 1
    assert q.get_many(2) == [0, 1]
    assert q.get_many() == [2, 3, "a"]
    with pytest.raises(ValueError, match="max_items"):
        q.get_many(0)
    q.put_many([])
    assert q.empty()


def test_an_error_of_the_pickler_is_raised_in_put_and_nothing_is_put():
    q = sharedmem.Queue()
    before = sharedmem.stats()["leases"]
    for call in (
        lambda: q.put([sharedmem.ones(3), Unpicklable()]),
        lambda: q.put_many([sharedmem.ones(3), b"x" * 9999, Unpicklable()]),
    ):
        with pytest.raises(AttributeError, match="not me"):
            call()
    assert q.empty()
    assert sharedmem.stats()["leases"] == before


def test_an_error_of_loading_is_raised_in_get_and_the_arrays_go():
    q = sharedmem.Queue()
    before = sharedmem.stats()["leases"]
    q.put([Unloadable(), sharedmem.ones(3)])
    with pytest.raises(ValueError, match="no number"):
        q.get()
    assert sharedmem.stats()["leases"] == before
    q.put_many([1, Unloadable(), 3])
    with pytest.raises(ValueError, match="no number") as caught:
        q.get_many()
    assert caught.value.messages == [1, 3]


def test_a_message_that_a_stray_write_changed_is_not_loaded():
    q = sharedmem.Queue()
    q.put("fine before")
    found = list(arena_bytes_with(b"fine before"))
    assert found, "the message lies in the arena"
    for address in found:
        workers.ctypes.memset(address + 5, 0x41, 1)
    with pytest.raises(RuntimeError, match="stray write"):
        q.get()
    q.put("fine after")
    assert q.get() == "fine after"


def arena_bytes_with(pattern):
    """Addresses of `pattern` in blocks of the ring's size, nearby an array made just now."""
    near = sharedmem.empty(16 * 1024, np.uint8)
    start = near.ctypes.data & ~((2 << 20) - 1)
    view = (workers.ctypes.c_char * (2 << 20)).from_address(start)
    data = bytes(view)
    at = data.find(pattern)
    while at >= 0:
        yield start + at
        at = data.find(pattern, at + 1)


def test_closed_here():
    q, s = sharedmem.JoinableQueue(), sharedmem.SimpleQueue()
    with pytest.raises(ValueError, match="not closed"):
        q.join_thread()
    q.cancel_join_thread()
    other = pickle.loads(pickle.dumps(q))
    q.close()
    q.join_thread()
    for call in (lambda: q.put(1), q.get, q.get_many, lambda: q.put_many([1])):
        with pytest.raises(ValueError, match="is closed"):
            call()
    other.put(1)
    assert other.get() == 1
    s.close()
    with pytest.raises(OSError, match="closed"):
        s.put(1)
    with pytest.raises(OSError, match="closed"):
        s.get()


def test_tasks():
    q = sharedmem.JoinableQueue()
    q.join()
    q.put(1)
    waiter = threading.Thread(target=q.join)
    waiter.start()
    q.get()
    time.sleep(0.05)
    assert waiter.is_alive()
    q.task_done()
    waiter.join(TIMEOUT)
    assert not waiter.is_alive()
    with pytest.raises(ValueError, match="too many times"):
        q.task_done()


@pytest.mark.parametrize("wrong", ["3", 1.5, None, True, [1]])
def test_a_bound_must_be_an_integer(wrong):
    with pytest.raises(TypeError, match="maxsize must be an integer"):
        sharedmem.Queue(wrong)


def test_wrong_pickles():
    q = sharedmem.Queue()
    function, (cls, memory, state) = q.__reduce__()
    for arguments in (
        (int, memory, state),
        (cls, sharedmem.zeros(1024, "u1"), state),
        (cls, memory[1:], state),
        (cls, np.zeros(1024, "u1"), state),
        (cls, sharedmem.zeros(8, "u1"), None),
    ):
        with pytest.raises(ValueError):
            function(*arguments)
    pickled = pickle.dumps(q)
    del q, memory
    with pytest.raises(sharedmem.StaleHandleError):
        pickle.loads(pickled)
    with sharedmem.pickle_by_value(), pytest.raises(TypeError, match="cannot be saved"):
        pickle.dumps(sharedmem.Queue())


def test_a_class_of_its_own():
    q = Counting(3)
    q.put_many([1, 2])
    again = pickle.loads(pickle.dumps(q))
    assert type(again) is Counting
    assert again.get_twice() == (1, 2)
    assert sharedmem.Queue[int]
    assert bool(q)


@pytest.mark.parametrize("kind", KINDS)
def test_it_reaches_processes_that_run_already(kind):
    there, back = sharedmem.Queue(), sharedmem.Queue(2)
    with Remote(kind) as worker:
        worker.conn.send((double, (there, back, 20)))
        there.put_many(range(10))
        for i in range(10):
            there.put(sharedmem.full(3, i))
        got = [back.get(timeout=TIMEOUT) for _ in range(20)]
        worker.result()
    assert got[:10] == [2 * i for i in range(10)]
    assert [int(a[0]) for a in got[10:]] == [2 * i for i in range(10)]


def test_it_is_inherited(context):
    there, back = sharedmem.Queue(), sharedmem.SimpleQueue()
    process = context.Process(target=double, args=(there, back, 3))
    process.start()
    there.put_many([1, 2, 3])
    assert [back.get() for _ in range(3)] == [2, 4, 6]
    process.join(TIMEOUT)


def test_what_was_put_is_there_although_its_sender_has_ended(context):
    q = sharedmem.Queue()
    process = context.Process(target=put_all, args=(q, [1, b"x" * 100_000, 3]))
    process.start()
    process.join(TIMEOUT)
    assert q.get_nowait() == 1
    assert len(q.get_nowait()) == 100_000
    assert q.get_nowait() == 3


def test_threads_wait_for_each_other():
    q, back = sharedmem.Queue(3), sharedmem.Queue()
    threads = [threading.Thread(target=double, args=(q, back, 500)) for _ in range(4)]
    for t in threads:
        t.start()
    for i in range(2000):
        q.put(i)
    assert sorted(back.get(timeout=TIMEOUT) for _ in range(2000)) == [2 * i for i in range(2000)]
    for t in threads:
        t.join(TIMEOUT)


def test_asyncio_by_run_in_executor():
    q = sharedmem.Queue()

    async def both():
        loop = asyncio.get_running_loop()
        waiting = loop.run_in_executor(None, q.get)
        await loop.run_in_executor(None, q.put, 5)
        return await waiting

    assert asyncio.run(both()) == 5


class Forgetful(sharedmem.Queue):
    def __init__(self):
        """It does not call `Queue.__init__`."""


@pytest.mark.parametrize("made", [Forgetful, lambda: sharedmem.SimpleQueue.__new__(sharedmem.SimpleQueue)])
def test_a_queue_that_was_not_made_cannot_be_sent(made):
    with pytest.raises(ValueError, match="__init__ was not called"):
        pickle.dumps(made())
