"""What `repr` shows of locks, events and queues, and `locked` of locks."""

import multiprocessing
import os
import pickle
import re
import signal
import threading
import time

import pytest
import support

import sharedmem

fork = support.context_of("fork")
KINDS = pytest.mark.parametrize("kind", [sharedmem.Lock, sharedmem.RLock])


def told(thing):
    """`repr` of a thing without its address."""
    name = type(thing).__name__
    found = re.fullmatch(rf"<{name} at 0x[0-9a-f]+,? (.*)>", repr(thing))
    assert found, repr(thing)
    return found[1]


@KINDS
def test_repr_of_a_lock_says_who_holds_it(kind):
    lock = kind()
    assert (told(lock), lock.locked()) == ("not held", False)
    with lock:
        assert (told(lock), lock.locked()) == ("held by this thread, depth 1", True)
    other, done = threading.Event(), threading.Event()

    def hold():
        with lock:
            other.set()
            assert done.wait(support.TIMEOUT)

    thread = threading.Thread(target=hold)
    thread.start()
    assert other.wait(support.TIMEOUT)
    assert (told(lock), lock.locked()) == ("held by another thread of this process", True)
    done.set()
    thread.join()
    assert (told(lock), lock.locked()) == ("not held", False)


held = []  # by a worker


def take(lock):
    held.append(lock)
    return lock.acquire()


def give_back():
    held.pop().release()


@KINDS
def test_repr_of_a_lock_names_another_process_that_holds_it(kind):
    lock = kind()
    with support.Remote("spawn") as remote:
        assert remote.call(take, lock)
        assert (told(lock), lock.locked()) == (f"held by process {remote.pid}", True)
        remote.call(give_back)
        assert (told(lock), lock.locked()) == ("not held", False)


def hold(lock, started):
    with lock:
        started.set()
        time.sleep(600)


@KINDS
def test_repr_of_a_lock_names_the_process_that_holds_it_until_that_is_killed(kind):
    lock, started = kind(), sharedmem.Event()
    process = multiprocessing.get_context(support.QUICKEST).Process(target=hold, args=(lock, started))
    process.start()
    try:
        assert started.wait(support.TIMEOUT)
        assert (told(lock), lock.locked()) == (f"held by process {process.pid}", True)
        same = pickle.loads(pickle.dumps(lock))
        assert told(same) == told(lock)
        assert told(sharedmem.Condition(lock)).endswith(f"held by process {process.pid}>")
    finally:
        process.kill()
        process.join()
    for _ in range(2):  # looking neither acquires the lock nor consumes the report of the death
        assert (told(lock), lock.locked()) == ("left by a thread that has ended", False)
    with pytest.warns(RuntimeWarning, match="half-written"):
        assert lock.acquire()
    assert lock.locked()
    lock.release()
    assert not lock.locked()


def test_a_lock_that_others_wait_for_still_shows_its_holder():
    lock = sharedmem.Lock()
    with lock:
        process = fork.Process(target=lock.acquire)
        process.start()
        support.wait_until(lambda: asleep(process.pid))
        assert told(lock) == "held by this thread, depth 1"
        thread = threading.Thread(target=lambda: seen.append(told(lock)))
        seen = []
        thread.start()
        thread.join()
        assert seen == ["held by another thread of this process"]
    process.join(support.TIMEOUT)
    assert process.exitcode == 0


def asleep(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "S"


def test_repr_of_a_recursive_lock_says_how_often_it_was_acquired():
    lock = sharedmem.RLock()
    with lock, lock:
        assert told(lock) == "held by this thread, depth 2"


def test_events_show_whether_they_are_set():
    event = sharedmem.Event()
    assert told(event) == "unset"
    event.set()
    assert told(event) == "set"


@pytest.mark.parametrize("kind", [sharedmem.Queue, sharedmem.JoinableQueue, sharedmem.SimpleQueue])
def test_queues_show_what_is_in_them(kind):
    q = kind()
    assert told(q) == "0 messages"
    q.put(1)
    assert told(q) == "1 message"
    q.put(2)
    assert told(q) == told(pickle.loads(pickle.dumps(q))) == "2 messages"
    q.close()
    assert told(q) == "2 messages, closed"


def test_repr_of_a_queue_shows_its_bound_and_its_tasks():
    q = sharedmem.JoinableQueue(7)
    q.put_many(range(3))
    assert told(q) == "3 messages, maxsize 7"
    assert q.get() == 0
    assert told(q) == "2 messages, 3 unfinished, maxsize 7"
    q.task_done()
    assert told(q) == "2 messages, maxsize 7"
    q.close()
    with pytest.raises(ValueError, match="maxsize 7, closed> is closed"):
        q.put(1)


def test_a_subclass_of_a_queue_has_its_own_name():
    class Mine(sharedmem.Queue):
        def __init__(self, made):
            if made:
                super().__init__(2)

    assert told(Mine(True)) == "0 messages, maxsize 2"
    assert told(Mine(False)) == "not made"


def test_repr_of_a_queue_does_not_wait():
    """Not for a process that is stopped with the queue's lock either."""
    q = sharedmem.Queue()

    def put_for_ever():
        while True:
            q.put_many(range(1000))
            q.get_many()

    process = fork.Process(target=put_for_ever)
    process.start()
    try:
        for _ in range(200):
            os.kill(process.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            assert told(q).rpartition(" ")[2] in ("message", "messages")
            os.kill(process.pid, signal.SIGCONT)
    finally:
        process.kill()
        process.join()
