"""Queues whose users are killed, interrupted, or find no memory."""

import multiprocessing
import queue as standard
import time

import pytest
import workers
from support import QUICKEST, TIMEOUT, check_python, wait_until

import sharedmem


def send_and_die(q):
    for i in range(3):
        q.put([sharedmem.full(50_000, i), b"." * 10_000])
    workers.kill()


def wait_for(q):
    q.get()


def answer_late(q, back):
    while q.get() is not None:
        time.sleep(0.001)  # until the other one sleeps
        back.put(1)


def test_arrays_of_a_killed_sender_are_kept():
    q = sharedmem.Queue()
    process = multiprocessing.get_context(QUICKEST).Process(target=send_and_die, args=(q,))
    process.start()
    process.join()
    assert workers.was_killed(process.exitcode)
    sharedmem.collect(leases=True)  # takes back what other messages of the dead keep
    for i in range(3):
        array, data = q.get(timeout=TIMEOUT)
        assert (array == i).all()
        assert data == b"." * 10_000
    assert q.empty()


def test_the_arrays_that_a_killed_receiver_held_go_and_the_rest_stays(python):
    out = python("""
        import os, signal, sharedmem
        q, ready = sharedmem.Queue(), sharedmem.Queue()
        q.put_many([sharedmem.full(100_000, i) for i in range(3)])
        pid = os.fork()
        if pid == 0:
            got = q.get()
            ready.put(1)
            signal.pause()
        ready.get()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        sharedmem.collect()
        print([int(a[0]) for a in q.get_many()], q.qsize())
        del q, ready
        sharedmem.collect()
        print(sharedmem.stats()["shared_blocks"], sharedmem.stats()["leases"])
    """)
    assert out == "[1, 2] 0\n0 0"


def test_waiting_processes_are_not_blocked_by_others_killed_while_they_wait():
    q = sharedmem.Queue()
    context = multiprocessing.get_context(QUICKEST)
    for _ in range(5):
        waiting = [context.Process(target=wait_for, args=(q,)) for _ in range(3)]
        for p in waiting:
            p.start()
        assert wait_until(lambda: len(q.stats()["receivers"]) == 3)
        for p in waiting[:2]:
            p.kill()
            p.join()
        q.put(1)
        waiting[2].join(TIMEOUT)
        assert waiting[2].exitcode == 0
        assert q.empty()


@pytest.mark.parametrize("call", ["q.get()", "full.put(2)", "joined.join()", "q.get_many()"])
def test_ctrl_c_is_heard(call):
    out = check_python(
        f"""
        import threading, sharedmem, workers
        q, full, joined = sharedmem.Queue(), sharedmem.Queue(1), sharedmem.JoinableQueue()
        full.put(1)
        joined.put(1)
        threading.Timer(0.2, workers.interrupt).start()
        try:
            {call}
        except KeyboardInterrupt:
            print("heard", q.qsize(), full.qsize())
        """
    )
    assert out == "heard 0 1"


def test_lack_of_memory_is_an_error_with_numbers_and_the_queue_stays_usable(python):
    out = python(
        """
        import sharedmem
        q, array = sharedmem.Queue(), sharedmem.ones(10)
        try:
            while True:
                q.put((array, b"." * 1_000_000))
        except MemoryError as error:
            print("MiB" in str(error))
        n = q.qsize()
        print(n > 5)
        # Of the ring, and of each message's bytes and array; what was not put was given back.
        assert sharedmem.stats()["leases"] == 1 + 2 * n
        small = 0
        try:
            while True:
                q.put(small)
                small += 1
        except MemoryError:
            pass
        q.put_many([])
        assert q.qsize() == n + small
        for i in range(n):
            assert len(q.get()[1]) == 1_000_000
        seen = 0
        while seen < small:
            got = q.get_many(1000)
            assert got == list(range(seen, seen + len(got)))
            seen += len(got)
        q.put(b"." * 50_000)
        print(len(q.get()))
        """,
        SHAREDMEM_ARENA="new",
        shell="ulimit -v 700000; export SHAREDMEM_ARENA_SIZE=32MiB",
    )
    assert out.split() == ["True", "True", "50000"]


def test_a_wait_ends_in_time():
    q = sharedmem.Queue()
    for seconds in (0.0, 0.05, 0.6):
        start = time.monotonic()
        with pytest.raises(standard.Empty):
            q.get(timeout=seconds)
        assert time.monotonic() - start >= seconds


def test_a_child_that_was_forked_while_threads_use_the_queue_can_use_it(python):
    out = python("""
        import os, threading, warnings, sharedmem
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads
        q, done = sharedmem.Queue(100), threading.Event()
        def busy():
            while not done.is_set():
                q.put(1)
                q.get()
        threads = [threading.Thread(target=busy) for _ in range(3)]
        for t in threads: t.start()
        children = []
        for i in range(20):
            pid = os.fork()
            if pid == 0:
                q.put(2)
                q.get(timeout=60)
                os._exit(0)
            children.append(pid)
        print(all(os.waitpid(pid, 0)[1] == 0 for pid in children))
        done.set()
        for t in threads: t.join()
        print(q.qsize())
    """)
    assert out == "True\n0"


def test_an_array_of_another_arena_arrives(python):
    out = python("""
        import numpy as np, sharedmem
        q = sharedmem.Queue()
        sharedmem.new_arena()
        a = sharedmem.array(np.arange(6))
        q.put([a, b"." * 10_000])
        del a
        got = q.get()[0]
        print(got.sum(), sharedmem.is_shared(got))
    """)
    assert out == "15 True"


def test_sleeping_processes_are_woken():
    """By the message, not by the look that follows a sender's death: that would take minutes here."""
    q, back, room = sharedmem.Queue(), sharedmem.Queue(1), sharedmem.Queue(1)
    context = multiprocessing.get_context(QUICKEST)
    process = context.Process(target=answer_late, args=(q, back))
    process.start()
    end = time.monotonic() + TIMEOUT
    for _ in range(500):
        q.put(1)
        back.get()
        assert time.monotonic() < end
    q.put(None)
    process.join(TIMEOUT)
    taker = context.Process(target=take_late, args=(room, 500))
    taker.start()
    for i in range(500):
        room.put(i)
        assert time.monotonic() < end
    taker.join(TIMEOUT)
    assert taker.exitcode == 0


def take_late(q, count):
    for i in range(count):
        time.sleep(0.001)
        assert q.get() == i


def test_a_daemon_thread_that_waits_does_not_keep_the_program(python):
    out = python("""
        import threading, time, sharedmem
        q = sharedmem.Queue()
        threading.Thread(target=q.get, daemon=True).start()
        time.sleep(0.05)
        print("done")
    """)
    assert out == "done"
