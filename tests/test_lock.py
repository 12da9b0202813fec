"""RLock: the lock in shared memory that arrays with a lock have."""

import contextlib
import os
import pickle
import threading
import time

import numpy as np
import pytest
import support
import workers
from alarms import alarms

import sharedmem
from sharedmem.lock import RLock

LEFT = "ended while it held this lock"


def held_elsewhere(lock):
    """Whether another thread can't take the lock now."""
    found = []

    def ask():
        found.append(not lock.acquire(False))
        if not found[0]:
            lock.release()

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return found[0]


def test_it_is_recursive():
    lock = RLock()
    assert not held_elsewhere(lock)
    with lock as taken:
        assert taken is True
        assert lock.acquire()
        lock.release()
        assert held_elsewhere(lock)
    assert not held_elsewhere(lock)


def test_releasing_what_one_does_not_hold():
    lock = RLock()
    with pytest.raises(AssertionError, match="does not hold"):
        lock.release()
    lock.acquire()
    lock.release()
    with pytest.raises(AssertionError, match="does not hold"):
        lock.release()


def test_the_ways_to_wait():
    lock = RLock()
    assert lock.acquire(False)
    found = []

    def ask():
        for arguments in ((False,), (True, 0), (True, -1), (True, 0.01)):
            found.append(lock.acquire(*arguments))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert found == [False] * 4
    lock.release()


def test_a_waiting_thread_gets_it():
    lock, order = RLock(), []
    lock.acquire()

    def wait():
        with lock:
            order.append("second")

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.05)
    order.append("first")
    lock.release()
    thread.join(support.TIMEOUT)
    assert order == ["first", "second"]


def test_a_pickled_lock_is_the_same_lock():
    lock = RLock()
    other = support.roundtrip(lock)
    with lock:
        assert held_elsewhere(other)
        assert other.acquire()
        lock.release()
        assert held_elsewhere(lock)
    assert not held_elsewhere(other)


@pytest.mark.parametrize(
    "memory",
    [sharedmem.zeros(64, "u1"), sharedmem.zeros(63, "u1"), sharedmem.zeros(8), np.zeros(64, "u1"), "text"],
    ids=["zeros", "short", "float", "private", "text"],
)
def test_memory_without_a_lock_is_refused(memory):
    with pytest.raises((ValueError, TypeError)):
        RLock(_memory=memory)


def test_the_memory_stays_while_it_is_held():
    lock = RLock()
    lock.acquire()
    data = pickle.dumps(lock)
    del lock
    support.settle()
    lock = pickle.loads(data)
    lock.release()
    assert not held_elsewhere(lock)


# -- several processes


def count(lock, counter, rounds):
    for _ in range(rounds):
        with lock:
            counter[0] += 1


def test_one_process_at_a_time(context):
    lock, counter, rounds = RLock(), sharedmem.zeros(1, "i8"), 3000
    processes = [context.Process(target=count, args=(lock, counter, rounds)) for _ in range(3)]
    for process in processes:
        process.start()
    count(lock, counter, rounds)
    assert support.join(*processes) == [0] * 3
    assert counter[0] == 4 * rounds


@pytest.mark.parametrize("kind", support.KINDS)
def test_sent_to_a_process_that_already_runs(kind):
    lock = RLock()
    with support.Remote(kind) as remote:
        with lock:
            assert remote.call(held_elsewhere, lock)
        assert not remote.call(held_elsewhere, lock)


def take_and_wait(lock, conn):
    lock.acquire()
    conn.send("taken")
    time.sleep(600)


def test_a_killed_owner_leaves_it_to_the_next(context):
    lock = RLock()
    ours, theirs = context.Pipe()
    process = context.Process(target=take_and_wait, args=(lock, theirs))
    process.start()
    assert ours.poll(support.TIMEOUT)
    assert ours.recv() == "taken"
    assert not lock.acquire(timeout=0.01)
    process.kill()
    with pytest.warns(RuntimeWarning, match=LEFT):
        assert lock.acquire(timeout=support.TIMEOUT)
    lock.release()
    assert workers.was_killed(*support.join(process))
    with lock:
        pass
    ours.close()
    theirs.close()


def test_so_does_a_thread_that_ends():
    lock = RLock()
    thread = threading.Thread(target=lock.acquire)
    thread.start()
    thread.join()
    with pytest.warns(RuntimeWarning, match=LEFT), lock:
        pass


def test_a_warning_that_is_an_error_does_not_keep_it():
    lock = RLock()
    thread = threading.Thread(target=lock.acquire)
    thread.start()
    thread.join()
    with pytest.raises(RuntimeWarning, match=LEFT):
        lock.acquire()
    assert not held_elsewhere(lock)


def test_a_forked_child_does_not_hold_it():
    lock = RLock()

    def child():
        with pytest.raises(AssertionError):
            lock.release()
        assert not lock.acquire(False)

    with lock:
        assert support.in_fork(child) == 0
        assert held_elsewhere(lock)


def test_ctrl_c_ends_a_wait():
    lock = RLock()
    ready, done = threading.Event(), threading.Event()

    def hold():
        with lock:
            ready.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    ready.wait()
    timer = threading.Timer(0.1, workers.interrupt)

    def wait():
        timer.start()
        lock.acquire()

    with pytest.raises(KeyboardInterrupt):
        wait()
    done.set()
    thread.join()
    timer.join()
    assert lock.acquire(timeout=support.TIMEOUT)
    lock.release()


def test_interrupts_never_lose_it():
    """A signal at any moment: the lock is held inside the block, and free after it."""
    lock = RLock()

    class Interrupt(Exception):
        pass

    def interrupt(number, frame):
        raise Interrupt

    def use(interrupt_after):
        end = time.monotonic() + support.TIMEOUT
        ring_after(interrupt_after)
        while time.monotonic() < end:
            for _ in range(1000):
                lock.acquire(timeout=1)
                lock.release()

    with alarms(interrupt) as ring_after:
        for i in range(200):
            with pytest.raises(Interrupt):
                use(1e-5 + i * 1e-6)
            with contextlib.suppress(AssertionError):
                lock.release()  # it came between the two calls
            assert not held_elsewhere(lock)


@pytest.mark.parametrize("timeout", ["1", [1]])
def test_timeouts_that_are_not_numbers(timeout):
    lock = RLock()
    with pytest.raises(TypeError, match=f"timeout must be a number.*not {type(timeout).__name__}"):
        lock.acquire(timeout=timeout)
    assert lock.acquire(timeout=-1)  # it was left free
    lock.release()


SAME_ID = """
import os, threading, warnings
from sharedmem.lock import RLock

lock, dead, found = RLock(), [], {}
warnings.simplefilter("ignore")  # of forks beside threads

def die_holding():
    lock.acquire()
    dead.append(threading.get_native_id())

def in_another_process():
    pid = os.fork()
    if pid == 0:
        warnings.simplefilter("ignore")
        os._exit(lock.acquire(False))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1

def look():
    if threading.get_native_id() != dead[0]:
        return
    try:
        lock.release()
        found["released"] = True
    except AssertionError:
        found["released"] = False
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found["taken"] = lock.acquire(timeout=0)
    found["warnings"] = len(said)
    found["also taken"] = in_another_process()

def run(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()

run(die_holding)
for _ in range(1000):       # until no other process gets the id
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(dead[0] - 1))
    run(look)
    if found:
        break
print(found)
"""


@support.needs_root
def test_a_thread_that_gets_the_id_of_a_dead_owner(python):
    namespaces = ("--pid", "--fork", "--mount-proc", "--kill-child")
    support.needs_namespaces(*namespaces)
    if not os.access("/proc/sys/kernel/ns_last_pid", os.W_OK):
        pytest.skip("this kernel does not let a process choose the next id")
    found = {"released": False, "taken": True, "warnings": 1, "also taken": False}
    assert python(SAME_ID, prefix=("unshare", *namespaces)) == str(found)


def test_a_failed_allocation_leaves_it_unchanged():
    testcapi = pytest.importorskip("_testcapi")
    lock, failures = RLock(), 0

    def call(function, n):
        """Calls function() with one allocation refused, after n that are not; whether that was noticed."""
        testcapi.set_nomemory(n, n + 1)
        try:
            function()
        except MemoryError:
            return True
        finally:
            testcapi.remove_mem_hooks()
        return False

    for n in range(60):
        if call(lock.acquire, n):
            failures += 1
            assert not held_elsewhere(lock)
            lock.acquire()
        if call(lock.release, n):
            failures += 1
            assert held_elsewhere(lock)
            lock.release()
        assert not held_elsewhere(lock)
    assert failures > 0
