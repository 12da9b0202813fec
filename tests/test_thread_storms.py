"""Threads that do everything at once, on the same objects, while garbage is collected.

What they find matters most on a Python without the GIL; on others the threads take turns.
"""

import copy
import gc
import pickle
import random
import sys
import sysconfig
import threading
import time
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
from support import check_python, settle
from test_threads import in_threads, live

import sharedmem
from sharedmem import StaleHandleError
from sharedmem.lock import RLock

THREADS = 6


@pytest.fixture(autouse=True)
def eager():
    """Threads change places often, where they have to, and garbage is looked for all the time."""
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-5)
    gc.set_threshold(50, 5, 5)
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*thresholds)


class Node:
    """An array in a cycle, which only the garbage collector frees."""

    def __init__(self, array):
        self.array = array
        self.me = self


def act(a, value, choice):
    """One use of an array whose elements all are `value`; an array with the same elements."""
    if choice == 0:
        return pickle.loads(pickle.dumps(a))
    if choice == 1:
        return pickle.loads(pickle.dumps(a[::-2], 5))
    if choice == 2:
        return ForkingPickler.loads(bytes(ForkingPickler.dumps([a, a[1:]])))[1]
    if choice == 3:
        return np.asarray(memoryview(a))[: a.size // 2 + 1]
    if choice == 4:
        return sharedmem.copy(a)
    if choice == 5:
        return copy.deepcopy(a)
    if choice == 6:
        return Node(a.view(a.dtype)).array.reshape(-1, 1)
    if choice == 7:
        return sharedmem.full_like(a, value)
    if choice == 8:
        return sharedmem.asshared(np.asarray(a) + 0)
    with sharedmem.pickle_by_value():
        return pickle.loads(pickle.dumps(a))


def test_everything_at_once():
    """Threads take arrays that others made from one board, use them, and put others in their place."""
    before, leases = live(), sharedmem.stats()["leases"]
    board = [(sharedmem.full(100, i), i) for i in range(8)]

    def storm(i):
        dice = random.Random(i)
        wrong = 0
        for step in range(400):
            place = dice.randrange(len(board))
            a, value = board[place]
            made = act(a, value, dice.randrange(10))
            wrong += int((np.asarray(made) != value).sum())
            if step % 3 == 0:
                value = 1000 * i + step
                board[place] = (sharedmem.full(dice.randrange(2, 300), value), value)
            elif step % 50 == 1:
                gc.collect()
        return wrong

    assert in_threads(storm, THREADS) == [0] * THREADS
    assert all((a == value).all() for a, value in board)
    board.clear()
    assert live() == before
    assert sharedmem.stats()["leases"] <= leases


def test_one_object_in_all_threads():
    """An array's own methods: they change nothing that another thread could see half-done."""
    a = sharedmem.full((10, 10), 3)

    def storm(i):
        total = 0
        for _ in range(300):
            a.setflags(write=True)
            total += int(a.T[i].sum()) + int(pickle.loads(pickle.dumps(a[i])).sum())
            total += sharedmem.is_shared(a) + (a + 1)[0, 0] - 4
        return total

    assert in_threads(storm, THREADS) == [300 * 61] * THREADS
    assert a.flags.writeable


def test_large_arrays_are_dropped_by_the_last_thread():
    """Blocks that are made and given back while other threads run."""
    before = live()
    slots = [None] * 4

    def storm(i):
        for step in range(40):
            a = sharedmem.full(2**18, 100 * i + step)
            other = slots[step % 4]
            slots[step % 4] = a[5:]
            if other is not None and other[0] != other[-1]:
                return other[0], other[-1]
        return None

    assert in_threads(storm, THREADS) == [None] * THREADS
    slots.clear()
    assert live() == before


def test_handles_outlive_or_say_so():
    """A handle is loaded while the array's last holder, in another thread, drops it."""
    handles = [(b"", 0)] * THREADS
    stop = threading.Event()

    def storm(i):
        if i == 0:
            for _ in range(600):
                value = random.randrange(1000)
                a = sharedmem.full(50, value)
                handles[value % THREADS] = (pickle.dumps(a), value)
            stop.set()
            return 0
        wrong = 0
        while not stop.is_set():
            data, value = handles[i]
            if data:
                try:
                    wrong += int((pickle.loads(data) != value).sum())
                except StaleHandleError:
                    time.sleep(0)
        return wrong

    assert in_threads(storm, THREADS) == [0] * THREADS


def test_locks_of_all_threads():
    """One lock, by several objects: each loads its own from the handle."""
    lock = RLock()
    data = pickle.dumps(lock)
    counter = sharedmem.zeros(1, np.int64)

    def storm(i):
        mine = lock if i % 2 else pickle.loads(data)
        for step in range(200):
            with mine:
                if step % 5 == 0:
                    with pickle.loads(data):
                        counter[0] += 1
                else:
                    counter[0] += 1
            if step % 7 == 0 and mine.acquire(timeout=0):
                mine.release()
        return True

    assert all(in_threads(storm, THREADS))
    assert counter[0] == 200 * THREADS
    with pytest.raises(AssertionError):
        lock.release()


def test_what_is_imported_late_by_all_threads():
    code = """
    import threading, sharedmem
    barrier, found = threading.Barrier(8), []
    def work():
        barrier.wait(60)
        v = sharedmem.Value("i", 3)
        with v.get_lock(): v.value += 1
        found.append((v.value, sharedmem.get_include() != [], list(sharedmem.RawArray("d", 2))))
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print(found == [(4, True, [0.0, 0.0])] * 8)
    """
    assert check_python(code) == "True"


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has the GIL")
def test_no_module_turns_the_gil_on():
    code = """
    import sys, pkgutil, importlib, sharedmem, shmarray
    for module in pkgutil.iter_modules(sharedmem.__path__):
        if module.name not in ("__main__", "_windows"):
            importlib.import_module("sharedmem." + module.name)
    print(sys._is_gil_enabled())
    """
    assert check_python(code, flags=["-Werror"]) == "False"


def test_garbage_is_collected():
    before = live()

    def storm(i):
        for step in range(300):
            Node(sharedmem.full(100, step))
        return True

    assert all(in_threads(storm, THREADS))
    settle()
    assert live() == before
