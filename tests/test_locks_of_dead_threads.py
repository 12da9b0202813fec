"""The memory of locks whose owner was a thread of this process that ended: it is not kept for ever."""

import gc
import pickle
import threading

import pytest
import support

import sharedmem

LEFT = "ended while it held this lock"


def die_with(lock):
    """A thread takes the lock and ends; the kernel notes that a moment after Python has joined it."""
    thread = threading.Thread(target=lock.acquire)
    thread.start()
    thread.join()
    support.wait_until(lambda: "left by a thread" in repr(lock))


def is_gone(handle):
    """Whether the memory of a pickled lock was freed."""
    try:
        pickle.loads(handle)
    except sharedmem.StaleHandleError:
        return True
    return False


def take_new_locks(count):
    """Takes so many new locks, each one once, and returns them."""
    locks = [sharedmem.RLock() for _ in range(count)]
    for lock in locks:
        with lock:
            pass
    return locks


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_it_is_freed_when_the_next_new_lock_is_taken(kind):
    lock = getattr(sharedmem, kind)()
    die_with(lock)
    handle = pickle.dumps(lock)
    del lock
    gc.collect()
    assert not is_gone(handle)
    take_new_locks(64)  # more than are held by any test
    assert is_gone(handle)


def test_it_is_freed_though_another_process_has_taken_and_released_it():
    lock = sharedmem.RLock()
    die_with(lock)

    def use(lock=lock):
        with pytest.warns(RuntimeWarning, match=LEFT), lock:
            pass

    assert support.in_fork(use) == 0
    handle = pickle.dumps(lock)
    del lock, use
    gc.collect()
    take_new_locks(64)
    sharedmem.collect()  # what the process that has ended had
    assert is_gone(handle)


def test_a_process_that_still_has_the_lock_is_warned_and_gets_it():
    lock = sharedmem.RLock()
    die_with(lock)
    take_new_locks(64)
    with pytest.warns(RuntimeWarning, match=LEFT), lock:
        assert lock._is_owned()
    with lock:
        pass


def test_what_living_threads_hold_stays():
    handles, done = [], threading.Event()

    def hold(kind):
        lock = kind()
        lock.acquire()
        handles.append(pickle.dumps(lock))
        del lock
        held.wait(support.TIMEOUT)
        done.wait(support.TIMEOUT)

    threads = [threading.Thread(target=hold, args=(kind,)) for kind in (sharedmem.Lock, sharedmem.RLock) * 2]
    held = threading.Barrier(len(threads) + 1)
    for thread in threads:
        thread.start()
    held.wait(support.TIMEOUT)
    ours = sharedmem.Lock()
    ours.acquire()
    mine = pickle.dumps(ours)
    del ours
    gc.collect()
    take_new_locks(64)
    for handle in handles:
        assert "held by" in repr(pickle.loads(handle))
        assert not pickle.loads(handle).acquire(block=False)
    pickle.loads(mine).release()
    done.set()
    for thread in threads:
        thread.join()
    take_new_locks(64)
    support.wait_until(lambda: (take_new_locks(64), all(map(is_gone, handles)))[1])


def test_a_search_is_paid_for_by_as_many_new_locks():
    """With many locks held, few new ones look at them all; what the dead left goes all the same."""
    held = [sharedmem.RLock() for _ in range(100)]
    for lock in held:
        lock.acquire()
    take_new_locks(300)
    handles = []
    for _ in range(20):
        lock = sharedmem.Lock()
        die_with(lock)
        handles.append(pickle.dumps(lock))
    del lock
    take_new_locks(300)
    assert all(map(is_gone, handles))
    for lock in held:
        lock.release()
