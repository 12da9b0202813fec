"""Event, Condition and Lock wait between processes, and survive any process's death."""

import contextlib
import functools
import multiprocessing
import pickle
import threading
import time

import numpy as np
import pytest
import support
import workers

import sharedmem
from sharedmem import atomics
from sharedmem._event import _open_event


def in_thread(function, *args):
    """What function(*args) returns in another thread."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function(*args)))
    thread.start()
    thread.join()
    return found[0]


@contextlib.contextmanager
def interrupted(after=0.05):
    """Ctrl-C after a while, which the block must turn into KeyboardInterrupt."""
    timer = threading.Timer(after, workers.interrupt)
    timer.start()
    try:
        yield
    except KeyboardInterrupt:
        return
    finally:
        timer.join()
    raise AssertionError("no interrupt")


# -- Lock


def test_a_lock_is_taken_once():
    lock = sharedmem.Lock()
    assert lock.acquire() is True
    assert lock.acquire(False) is False
    assert lock.acquire(timeout=0.01) is False
    assert lock.acquire(timeout=-1) is False
    with pytest.raises(RuntimeError, match="wait for itself"):
        lock.acquire()
    assert in_thread(lock.acquire, False) is False
    assert lock.release() is None
    assert in_thread(lambda: lock.acquire() and lock.release() is None)
    with lock as taken:
        assert taken is True


def test_only_its_owner_releases_a_lock():
    lock = sharedmem.Lock()
    with pytest.raises(ValueError, match="does not hold"):
        lock.release()

    def release():
        with pytest.raises(ValueError, match="does not hold"):
            lock.release()
        return True

    with lock:
        assert in_thread(release)
        assert support.in_fork(release) == 0
        assert not in_thread(lock.acquire, False)


def test_names_and_kinds():
    assert sharedmem.RLock is sharedmem.lock.RLock
    assert "RLock" in repr(sharedmem.RLock())
    lock = sharedmem.Lock()
    assert "not held" in repr(lock)
    with lock:
        assert "depth 1" in repr(lock)
    openers = {
        sharedmem.Event: _open_event,
        sharedmem.Condition: functools.partial(sharedmem._condition._open_condition, lock),
        sharedmem.Lock: sharedmem.lock._open_plain_lock,
        sharedmem.RLock: sharedmem.lock._open_lock,
    }
    for kind, opener in openers.items():
        with pytest.raises(TypeError):
            kind(1, 2)
        for memory in (np.zeros(4, "u4"), sharedmem.zeros(4, "u4"), sharedmem.zeros(64, "u1"), [1, 2, 3]):
            with pytest.raises((ValueError, TypeError)):
                opener(memory)


def test_python_s_condition_works_with_our_locks():
    for lock in (sharedmem.RLock(), sharedmem.Lock()):
        condition, woken = threading.Condition(lock), []

        def wait(condition=condition, woken=woken):
            with condition:
                woken.append(condition.wait(support.TIMEOUT))

        thread = threading.Thread(target=wait)
        thread.start()
        while not woken:
            with condition:
                condition.notify()
            time.sleep(0.001)
        thread.join()
        assert woken == [True]


# -- Event


def test_an_event():
    event = sharedmem.Event()
    assert event.is_set() is False
    assert event.wait(0) is False
    assert event.wait(-1) is False
    begin = time.monotonic()
    assert event.wait(0.15) is False
    assert time.monotonic() - begin >= 0.15
    for _ in range(2):
        event.set()
        assert event.is_set() is True
        assert event.wait() is True
    for _ in range(2):
        event.clear()
        assert event.is_set() is False
    with pytest.raises(TypeError):
        event.wait("1")


def test_a_waiting_process_sees_a_set_that_is_cleared_at_once():
    event, ready, seen = sharedmem.Event(), threading.Semaphore(0), []

    def wait():
        ready.release()
        seen.append(event.wait(support.TIMEOUT))

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
        ready.acquire()
    time.sleep(0.05)
    event.set()
    event.clear()
    for thread in threads:
        thread.join()
    assert seen == [True] * 3
    assert not event.is_set()


def test_the_counter_of_changes_may_wrap():
    memory = sharedmem.array([0, 0x656D7601], "u4")
    event = _open_event(memory)
    memory[0] = 2**32 - 1
    assert event.is_set()
    event.clear()
    assert not event.is_set()
    event.set()
    assert memory[0] == 1


def test_ctrl_c_ends_the_wait_for_an_event():
    with interrupted():
        sharedmem.Event().wait()


# -- Condition


def test_a_condition_needs_its_lock():
    condition = sharedmem.Condition()
    for method in (condition.wait, condition.notify, condition.notify_all):
        with pytest.raises(AssertionError, match="held by this thread"):
            method()
    with pytest.raises(AssertionError):
        condition.release()
    with condition:
        with pytest.raises(ValueError, match="-1"):
            condition.notify(-1)
        with pytest.raises(TypeError):
            condition.notify("all")
        with pytest.raises(TypeError):
            condition.wait("1")
        assert condition._lock._is_owned()
        condition.notify()
        condition.notify_all()
        assert condition.wait(0) is False
        assert condition.wait(-1) is False
        begin = time.monotonic()
        assert condition.wait(0.15) is False
        assert time.monotonic() - begin >= 0.15
    for lock in (threading.RLock(), multiprocessing.Lock(), 1):
        with pytest.raises(TypeError, match=r"sharedmem\.RLock"):
            sharedmem.Condition(lock)


@pytest.mark.parametrize("lock", [sharedmem.RLock, sharedmem.Lock])
def test_a_wait_releases_the_lock_and_takes_it_back(lock):
    condition = sharedmem.Condition(lock())
    depth = 3 if lock is sharedmem.RLock else 1
    for _ in range(depth):
        assert condition.acquire()

    def notify():
        with condition:
            condition.notify()

    thread = threading.Thread(target=notify)
    thread.start()
    assert condition.wait(support.TIMEOUT) is True
    thread.join()
    assert not in_thread(condition.acquire, False)
    for _ in range(depth):
        condition.release()
    assert in_thread(lambda: condition.acquire(False) and condition.release() is None)


def test_wait_for():
    condition, number = sharedmem.Condition(), sharedmem.zeros(1, int)

    def count():
        for _ in range(5):
            with condition:
                number[0] += 1
                condition.notify_all()

    with condition:
        assert condition.wait_for(lambda: 0, 0.05) == 0
        assert condition.wait_for(lambda: "yes", 0) == "yes"
        thread = threading.Thread(target=count)
        thread.start()
        assert condition.wait_for(lambda: number[0] == 5, support.TIMEOUT)
    thread.join()


def test_a_condition_without_waiters_keeps_no_notification():
    condition = sharedmem.Condition()
    with condition:
        for n in (1, 5):
            condition.notify(n)
        condition.notify_all()
        assert condition.wait(0.02) is False


def wait_and_count(condition, waiting, woken):
    with condition:
        waiting[0] += 1
        condition.wait()
        woken[0] += 1


def test_no_notification_is_lost_and_none_wakes_two_at_once():
    condition, waiting, woken = sharedmem.Condition(), sharedmem.zeros(1, int), sharedmem.zeros(1, int)
    context = multiprocessing.get_context(support.QUICKEST)
    crowd = [context.Process(target=wait_and_count, args=(condition, waiting, woken)) for _ in range(6)]
    for process in crowd:
        process.start()
    assert support.wait_until(lambda: waiting[0] == 6)
    for expected, n in ((1, 1), (3, 2), (6, 7)):
        with condition:  # they all wait, for the lock is free
            condition.notify(n)
        assert support.wait_until(lambda expected=expected: atomics.load(woken, 0) >= expected)
    assert support.join(*crowd) == [0] * 6
    assert woken[0] == 6


def test_a_notification_whose_receiver_was_killed_reaches_another_one():
    condition, waiting, woken = sharedmem.Condition(), sharedmem.zeros(1, int), sharedmem.zeros(1, int)
    context = multiprocessing.get_context(support.QUICKEST)
    first, second = (
        context.Process(target=wait_and_count, args=(condition, waiting, woken)) for _ in range(2)
    )
    for process, count in ((first, 1), (second, 2)):
        process.start()
        assert support.wait_until(lambda count=count: atomics.load(waiting, 0) == count)
        time.sleep(0.02)
    with condition:
        condition.notify()  # no woken thread can continue while the lock is held
        first.kill()
        first.join()
    assert support.wait_until(lambda: atomics.load(woken, 0) == 1)
    statuses = support.join(first, second)
    assert workers.was_killed(statuses[0])
    assert statuses[1] == 0


def test_ctrl_c_ends_the_wait_for_a_condition_with_the_lock_taken_back():
    condition = sharedmem.Condition()
    with condition:
        with interrupted():
            condition.wait()
        assert condition._lock._is_owned()
    assert not condition._lock._is_owned()


def test_ctrl_c_while_another_thread_has_the_lock():
    """The lock can't be acquired again: the caller gets the interrupt, not an error of the lock."""
    condition, go_on, taken = sharedmem.Condition(), threading.Event(), threading.Event()

    def hold():
        with condition:
            condition.notify()
            taken.set()
            go_on.wait()

    thread = threading.Thread(target=hold)
    with interrupted(0.3), condition:
        thread.start()
        condition.wait()
    go_on.set()
    thread.join()
    assert in_thread(lambda: condition.acquire() and condition.release() is None)


# -- sent anywhere


def use_all(lock, recursive, event, condition, log):
    """The other side: it waits for the event, then works under each lock and notifies."""
    event.wait()
    with lock:
        log[0] += 1
    with recursive, recursive:
        log[0] += 1
    with condition:
        log[0] += 1
        condition.notify_all()
    return True


@pytest.mark.parametrize("kind", support.KINDS)
def test_sent_to_a_process_that_already_runs(kind):
    lock, recursive, event = sharedmem.Lock(), sharedmem.RLock(), sharedmem.Event()
    condition, log = sharedmem.Condition(), sharedmem.zeros(1, int)
    with support.Remote(kind) as remote, condition:
        remote.conn.send((use_all, (lock, recursive, event, condition, log)))
        event.set()
        assert condition.wait_for(lambda: log[0] == 3, support.TIMEOUT)
        condition.release()  # the block releases it once more
        assert remote.result() is True
        condition.acquire()


STRANGER = """
import pickle, sys
event, condition, log = pickle.loads(sys.stdin.buffer.read())
event.wait()
with condition:
    log[0] = 7
    condition.notify()
"""


def test_as_bytes_to_a_stranger(python):
    event, condition, log = sharedmem.Event(), sharedmem.Condition(sharedmem.Lock()), sharedmem.zeros(1)
    event.set()
    with condition:
        data = pickle.dumps((event, condition, log))
        thread = threading.Thread(target=python, args=(STRANGER,), kwargs={"data": data})
        thread.start()
        assert condition.wait_for(lambda: log[0] == 7, support.TIMEOUT)
    thread.join()


def test_written_to_files_they_are_new_ones():
    event, lock, condition = sharedmem.Event(), sharedmem.Lock(), sharedmem.Condition()
    event.set()
    with sharedmem.pickle_by_value():
        data = pickle.dumps((event, lock, condition))
    with lock, condition:
        event.clear()
        other_event, other_lock, other_condition = pickle.loads(data)
        assert other_event.is_set()
        assert in_thread(other_lock.acquire, False)
        assert in_thread(other_condition.acquire, False)


def test_two_conditions_of_one_lock_arrive_with_one_lock():
    lock = sharedmem.RLock()
    first, second = support.roundtrip((sharedmem.Condition(lock), sharedmem.Condition(lock)))
    with first:
        assert second._lock._is_owned()
        assert not in_thread(second.acquire, False)
