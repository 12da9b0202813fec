"""Who sleeps is woken by what it waits for, and not by the look in case of a death, some times a second.

Each test has so many rounds that those looks alone would take minutes.
"""

import contextlib
import multiprocessing
import time

import numpy as np
import support

import sharedmem
from sharedmem import atomics

DEADLINE = 80  # seconds for all rounds
ROUNDS = 1000  # of a tenth of a second, if nobody is woken
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


def in_time(rounds):
    end = time.monotonic() + DEADLINE
    for i in range(1, rounds + 1):
        yield i
        assert time.monotonic() < end, f"only {i} rounds of {rounds}"


def work(queue, rounds):
    for _ in range(rounds):
        queue.get()
        time.sleep(LATE)
        queue.task_done()


def test_who_joins_is_woken_by_the_last_task_done():
    queue, rounds = sharedmem.JoinableQueue(), 400  # of a quarter of a second, if nobody is woken
    with helper(work, queue, rounds):
        for i in in_time(rounds):
            queue.put(i)
            queue.join()


def answer(words):
    for i in range(1, ROUNDS + 1):
        atomics.wait(words, 0, i - 1)
        time.sleep(LATE)
        atomics.store(words, 1, i)
        atomics.notify(words, 1)


def test_who_waits_for_a_word_is_woken_by_another_process():
    words = sharedmem.zeros(2, "i4")
    with helper(answer, words):
        for i in in_time(ROUNDS):
            atomics.store(words, 0, i)
            atomics.notify(words, 0)
            assert atomics.wait(words, 1, i - 1, DEADLINE)


def put_late(latest, asked):
    for i in range(1, ROUNDS + 1):
        atomics.wait(asked, 0, i - 1)
        time.sleep(LATE)
        latest.put(np.full(1, i))


def test_who_waits_for_the_newest_array_is_woken_by_its_writer():
    latest, asked = sharedmem.Latest(), sharedmem.zeros(1, "i4")
    with helper(put_late, latest, asked):
        for i in in_time(ROUNDS):
            atomics.store(asked, 0, i)
            atomics.notify(asked, 0)
            a, number = latest.get(after=i - 1, timeout=DEADLINE)
            assert (a[0], number) == (i, i)
