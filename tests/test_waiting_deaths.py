"""Locks, events and conditions whose users are killed, and CPython's own tests of them."""

import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
import support
import workers

import sharedmem

LEFT = "ended while it held this lock"


def use_until_killed(lock, event, condition, done):
    random.seed(os.getpid())
    warnings.simplefilter("ignore")
    while True:
        what = random.randrange(6)
        if what == 0:
            with lock:
                done[0] += 1
        elif what == 1:
            event.set()
        elif what == 2:
            event.clear()
            event.wait(0.001)
        elif what == 3:
            with condition:
                condition.wait(0.002)
        else:
            with condition:
                condition.notify(random.randrange(3))


@pytest.mark.filterwarnings(f"ignore:.*{LEFT}:RuntimeWarning")
def test_no_process_hangs_when_others_are_killed_at_any_moment():
    """Users of all three are killed at random; the others can use them at once."""
    lock, event, condition, done = (
        sharedmem.Lock(),
        sharedmem.Event(),
        sharedmem.Condition(),
        sharedmem.zeros(1),
    )
    context = multiprocessing.get_context(support.QUICKEST)
    # Where there is no fork, a process needs longer until it has begun.
    rounds, longest = (150, 0.005) if support.QUICKEST == "fork" else (20, 2.0)

    def start():
        user = context.Process(target=use_until_killed, args=(lock, event, condition, done))
        user.start()
        return user

    users = [start() for _ in range(4)]
    choose = random.Random(5)
    for _ in range(rounds):
        victim = choose.randrange(len(users))
        time.sleep(choose.random() * longest)
        users[victim].kill()
        users[victim].join()
        users[victim].close()
        users[victim] = start()
        assert lock.acquire(timeout=support.TIMEOUT)
        lock.release()
        assert condition.acquire(timeout=support.TIMEOUT)
        condition.notify_all()
        condition.release()
        event.set()
    for user in users:
        user.kill()
    assert all(map(workers.was_killed, support.join(*users)))
    assert done[0] > 0
    with condition:
        assert condition.wait(0.01) in (True, False)


def notify_and_hold(condition, ready):
    condition.acquire()
    condition.notify_all()
    ready.set()
    time.sleep(600)


def test_a_waiter_for_the_condition_is_warned_of_the_holders_death():
    condition, ready = sharedmem.Condition(), sharedmem.Event()
    with condition:
        context = multiprocessing.get_context(support.QUICKEST)
        process = context.Process(target=notify_and_hold, args=(condition, ready))
        process.start()
        killer = threading.Thread(target=lambda: ready.wait() and process.kill())
        killer.start()
        with pytest.warns(RuntimeWarning, match=LEFT):
            assert condition.wait(support.TIMEOUT)
    killer.join()
    assert workers.was_killed(*support.join(process))


def wait_beside_a_thread_that_ends(condition):
    def leave():
        condition.acquire()
        condition.notify()

    with condition:
        threading.Thread(target=leave).start()
        condition.wait(support.TIMEOUT)


@pytest.mark.parametrize("way", ["acquire", "with", "wait", "Array"])
def test_the_warning_has_the_line_of_the_caller(way):
    """By default Python shows it once for each line: a line within the library would be that of all locks."""
    condition, array = sharedmem.Condition(), sharedmem.Array("i", 3)
    if way != "wait":
        thread = threading.Thread(target=array.get_lock().acquire if way == "Array" else condition.acquire)
        thread.start()
        thread.join()
    act = {
        "acquire": condition.acquire,
        "with": lambda: condition.__enter__(),
        "wait": lambda: wait_beside_a_thread_that_ends(condition),
        "Array": lambda: array[:],
    }[way]
    with pytest.warns(RuntimeWarning, match=LEFT) as said:
        act()
    assert [each.filename for each in said] == [__file__]


def test_a_warning_that_is_an_error_leaves_the_condition_free():
    """The next one acquires it without the warning."""
    condition = sharedmem.Condition()
    thread = threading.Thread(target=condition.acquire)
    thread.start()
    thread.join()
    with pytest.raises(RuntimeWarning, match=LEFT):
        condition.acquire()
    assert condition.acquire(timeout=0)
    condition.release()


# -- CPython's own tests

# Those that fail although nothing is wrong, with the reason; none does.
MEANT_TO_DIFFER = {}


def test_python_s_own_tests(start_method):
    """It may take more than one try: they assert upper times."""
    pytest.importorskip("test._test_multiprocessing")
    program = Path(__file__).with_name("cpython_locks.py")
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, program, start_method],
            env=support.environment(),
            capture_output=True,
            text=True,
            timeout=4 * support.TIMEOUT,
        )
        *failed, count = done.stdout.split("\n")[:-1]
        if set(failed) == set(MEANT_TO_DIFFER):
            break
    assert set(failed) == set(MEANT_TO_DIFFER), done.stderr
    least = 12 if sys.version_info >= (3, 11) else 11
    assert int(count.removeprefix("ran ")) >= least
