"""What `sharedmem.transport` gives back, and how it counts, where something fails or is refused."""

import contextlib
import os
import pickle
import sys
import threading
import time
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
from support import QUICKEST, TIMEOUT, context_of, dumps, join, needs_root, wait_until

import sharedmem

FORK = context_of("fork")
CONTEXT = context_of(QUICKEST)


def counts():
    return sharedmem.stats()["transport"]


def leases():
    return sharedmem.stats()["leases"]


@pytest.mark.parametrize("value", [np.arange(5000.0), [np.arange(5000.0), np.ones((30, 40)).T]])
def test_memory_that_fails_at_any_point_of_a_message_leaves_nothing_under_way(value):
    fails = pytest.importorskip("_testcapi")
    with sharedmem.transport(1):
        pickle.loads(dumps(value))
        before = leases(), counts()["in_flight"]
        failed = 0
        for number in range(120):
            message = None
            with contextlib.suppress(MemoryError, pickle.PicklingError):
                fails.set_nomemory(number, number + 1)
                try:
                    message = ForkingPickler.dumps(value)
                finally:
                    fails.remove_mem_hooks()
            if message is None:
                failed += 1
            else:
                pickle.loads(message)
            assert (leases(), counts()["in_flight"]) == before, number
        assert failed > 5


@pytest.mark.parametrize("dtype", [[("a", "f8"), ("b", "i4")], "V9", np.dtype("f8", metadata={"unit": "m"})])
def test_an_array_whose_dtype_travels_apart_is_carried_alone_and_counted_once(dtype):
    a = np.zeros(100_000, dtype)
    small = 2000
    with sharedmem.transport(max_in_flight=a.nbytes * 3 // 2):
        before = counts()
        for _ in range(10):
            message = dumps(a)
            assert len(message) < small
            pickle.loads(message)
        after = counts()
    assert after["messages"] - before["messages"] == 10
    assert after["by_pipe"] == before["by_pipe"]


def test_layouts_that_a_copy_would_not_keep_are_pickled():
    permuted = np.ones((100, 100, 3)).transpose(2, 0, 1)
    with_gaps = np.ones(10_000, "f8,i4")[::2]
    with sharedmem.transport():
        before = counts()["messages"]
        for value, protocol in ((permuted, 5), (with_gaps, 4), (with_gaps, 5)):
            message = ForkingPickler.dumps(value, protocol)
            assert len(message) > value.nbytes
            assert pickle.loads(message).strides == pickle.loads(pickle.dumps(value, protocol)).strides
        assert counts()["messages"] == before
        message = ForkingPickler.dumps(permuted.copy("C"), 5)
        assert len(message) < 1000
        pickle.loads(message)


class Unloadable:
    def __reduce__(self):
        return refuse_to_load, ()


def refuse_to_load():
    raise RuntimeError("this cannot be loaded")


@pytest.mark.parametrize("make", ["Pipe", "Queue", "SimpleQueue"])
def test_a_message_that_cannot_be_loaded_keeps_no_memory(make):
    before = leases()
    shared = sharedmem.ones(1000)
    with sharedmem.transport():
        if make == "Pipe":
            receiver, sender = CONTEXT.Pipe(False)
            send, receive = sender.send, receiver.recv
        else:
            queue = getattr(CONTEXT, make)()
            send, receive = queue.put, queue.get
        for _ in range(3):
            send([Unloadable(), np.ones(100_000), shared])
            with pytest.raises(RuntimeError, match="cannot be loaded"):
                receive()
        send([np.ones(100_000), Unloadable(), shared])  # some of it loaded
        with pytest.raises(RuntimeError, match="cannot be loaded"):
            receive()
        assert leases() == before
        send([np.ones(100_000), shared])
        assert receive()[1][0] == 1.0
        if make == "Pipe":
            receiver.close()
            sender.close()
        else:
            queue.close()
            if make == "Queue":
                queue.join_thread()
    assert leases() == before


def test_bytes_that_a_program_reads_itself_can_be_loaded_again_after_an_error():
    receiver, sender = CONTEXT.Pipe(False)
    with receiver, sender, sharedmem.transport():
        sender.send([Unloadable(), np.ones(100_000)])
        data = receiver.recv_bytes()
    before = leases()
    with pytest.raises(RuntimeError):
        pickle.loads(data)
    assert leases() == before  # kept: only the program knows whether it will load them again
    assert sharedmem.revoke(0) == 1


def test_settings_that_overlap_end_with_the_last_of_them():
    was = os.environ.get("SHAREDMEM_TRANSPORT")
    first, second, third = (sharedmem.transport(number) for number in (111, 222, 333))
    second.close()
    assert "333" in os.environ["SHAREDMEM_TRANSPORT"]
    first.close()
    assert "333" in os.environ["SHAREDMEM_TRANSPORT"]
    third.close()
    assert os.environ.get("SHAREDMEM_TRANSPORT") == was
    with sharedmem.transport(444):
        inner = sharedmem.transport(555)
        inner.close()
        inner.close()
        assert "444" in os.environ["SHAREDMEM_TRANSPORT"]
    assert os.environ.get("SHAREDMEM_TRANSPORT") == was


def test_a_forked_child_does_not_keep_what_another_thread_is_sending():
    """The thread does not exist in the child, where nothing else has what it was copying."""

    def shared_blocks():
        return sharedmem.stats()["shared_blocks"]

    before = shared_blocks()
    with sharedmem.transport():
        message = np.ones((1000, 1000))
        end = threading.Event()

        def send_and_receive():
            while not end.is_set():
                pickle.loads(ForkingPickler.dumps(message))

        thread = threading.Thread(target=send_and_receive)
        thread.start()
        waiting, release = os.pipe()
        children = []
        try:
            for _ in range(8):
                time.sleep(0.02)
                child = os.fork()
                if child == 0:
                    os.close(release)
                    os.read(waiting, 1)  # until the parent closes its end
                    os._exit(0)
                children.append(child)
            end.set()
            thread.join()
            assert leases() == 0
            # The youngest child may just be starting.
            # Blocks of earlier tests may go meanwhile.
            assert wait_until(lambda: shared_blocks() <= before), (before, shared_blocks())
        finally:
            end.set()
            thread.join()
            os.close(release)
            os.close(waiting)
            codes = [os.waitpid(child, 0)[1] for child in children]
        assert codes == [0] * 8


def send_as_somebody_else(conn):
    os.setgid(65534)
    os.setuid(65534)
    for _ in range(2):
        conn.send(np.full(300_000, 7.0))
    conn.send(counts()["by_pipe"])


@needs_root
def test_a_worker_that_has_become_another_user_sends_what_can_be_loaded():
    with sharedmem.transport():
        receiver, sender = FORK.Pipe(False)
        process = FORK.Process(target=send_as_somebody_else, args=(sender,))
        process.start()
        sender.close()
        for _ in range(2):
            assert receiver.poll(TIMEOUT)
            assert receiver.recv()[-1] == 7.0
        assert receiver.recv() >= 1
        assert join(process) == [0]
        receiver.close()


@pytest.mark.parametrize("offsets", [[8, 0], [0, 8]])
def test_read_only_structured_arrays_arrive_as_pickled(offsets):
    dtype = np.dtype({"names": ["a", "b"], "formats": ["i4", "f4"], "offsets": offsets, "itemsize": 24})
    a = np.zeros(10_000, dtype)
    a.flags.writeable = False
    with sharedmem.transport(1):
        got = pickle.loads(ForkingPickler.dumps([a], 5))[0]
    assert got.flags.writeable == pickle.loads(pickle.dumps(a, 5)).flags.writeable
    np.testing.assert_array_equal(got, a)


@pytest.mark.parametrize("protocol", [4, 5])
def test_buffers_of_arrow_arrive_as_mutable_as_pickled(protocol):
    pyarrow = pytest.importorskip("pyarrow")
    for made in (pyarrow.allocate_buffer(100_000), pyarrow.py_buffer(bytes(100_000))):
        with sharedmem.transport(1):
            got = pickle.loads(ForkingPickler.dumps(made, protocol))
        assert got.is_mutable == pickle.loads(pickle.dumps(made, protocol)).is_mutable
        assert got.size == made.size


@pytest.mark.skipif(sys.maxsize < 1 << 50, reason="NumPy never requests so much on 32 bits")
def test_a_caught_refusal_of_the_allocator_is_not_the_cause_of_another_error():
    def fails_otherwise():
        with sharedmem.allocator():
            with contextlib.suppress(MemoryError):
                np.empty(1 << 50, np.uint8)
            raise MemoryError("another")

    with pytest.raises(MemoryError, match="another") as caught:
        fails_otherwise()
    assert caught.value.__cause__ is None
    with pytest.raises(MemoryError) as caught, sharedmem.allocator():
        np.empty(1 << 50, np.uint8)
    assert "cannot allocate" in str(caught.value.__cause__)
