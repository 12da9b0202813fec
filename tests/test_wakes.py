"""A sleeping process is woken by what it waits for, and not only by its check for deaths some times a second.

By such looks alone each round would take a tenth of a second. On a busy machine some rounds take as long:
only a quarter of them must be quicker.
"""

import contextlib
import multiprocessing
import time

import numpy as np
import support

import sharedmem
from sharedmem import atomics

HANG = 600  # seconds
ROUNDS = 100
QUICK = 0.05  # seconds, half of the shortest time between two looks
LATE = 0.001  # seconds after which the other process answers: by then this one sleeps


@contextlib.contextmanager
def helper(target, *args):
    """A process that answers; it is killed if the test fails."""
    process = multiprocessing.get_context("fork").Process(target=target, args=args, daemon=True)
    process.start()
    try:
        yield
    except BaseException:
        process.kill()
        support.join(process)
        raise
    assert support.join(process) == [0]


def rounds_with_quick_ones():
    quick = 0
    for i in range(1, ROUNDS + 1):
        begin = time.monotonic()
        yield i
        quick += time.monotonic() - begin < QUICK
    assert quick > ROUNDS / 4


def work(queue):
    for _ in range(ROUNDS):
        queue.get()
        time.sleep(LATE)
        queue.task_done()


def test_join_is_woken_by_the_last_task_done():
    queue = sharedmem.JoinableQueue()
    with helper(work, queue):
        for i in rounds_with_quick_ones():
            queue.put(i)
            queue.join()


def answer(words):
    for i in range(1, ROUNDS + 1):
        atomics.wait(words, 0, i - 1)
        time.sleep(LATE)
        atomics.store(words, 1, i)
        atomics.notify(words, 1)


def test_a_wait_for_a_word_is_woken_by_another_process():
    words = sharedmem.zeros(2, "i4")
    with helper(answer, words):
        for i in rounds_with_quick_ones():
            atomics.store(words, 0, i)
            atomics.notify(words, 0)
            assert atomics.wait(words, 1, i - 1, HANG)


def put_late(latest, asked):
    for i in range(1, ROUNDS + 1):
        atomics.wait(asked, 0, i - 1)
        time.sleep(LATE)
        latest.put(np.full(1, i))


def test_a_wait_for_the_newest_array_is_woken_by_its_writer():
    latest, asked = sharedmem.Latest(), sharedmem.zeros(1, "i4")
    with helper(put_late, latest, asked):
        for i in rounds_with_quick_ones():
            atomics.store(asked, 0, i)
            atomics.notify(asked, 0)
            a, number = latest.get(after=i - 1, timeout=HANG)
            assert (a[0], number) == (i, i)
