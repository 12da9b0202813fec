"""Invalid times and counts are rejected by everything that waits or wakes, without any effect."""

import numpy as np
import pytest

import sharedmem
from sharedmem import atomics

NAN = float("nan")


class Waits:
    """Each way to wait, as a function of the timeout; whether it would have to wait makes no difference."""

    @staticmethod
    def lock(timeout):
        return sharedmem.Lock().acquire(True, timeout)

    @staticmethod
    def rlock(timeout):
        return sharedmem.RLock().acquire(True, timeout)

    @staticmethod
    def event(timeout):
        return sharedmem.Event().wait(timeout)

    @staticmethod
    def condition(timeout):
        with (condition := sharedmem.Condition()):
            return condition.wait(timeout)

    @staticmethod
    def condition_for(timeout):
        with (condition := sharedmem.Condition()):
            return condition.wait_for(lambda: False, timeout)

    @staticmethod
    def condition_that_holds(timeout):
        with (condition := sharedmem.Condition()):
            return condition.wait_for(lambda: True, timeout)

    @staticmethod
    def latest(timeout):
        return sharedmem.Latest().get(timeout=timeout)

    @staticmethod
    def latest_that_is_there(timeout):
        latest = sharedmem.Latest()
        latest.put(np.ones(1))
        return latest.get(timeout=timeout)

    @staticmethod
    def get(timeout):
        return sharedmem.Queue().get(True, timeout)

    @staticmethod
    def get_that_is_there(timeout):
        queue = sharedmem.JoinableQueue()
        queue.put(1)
        return queue.get(timeout=timeout)

    @staticmethod
    def get_many(timeout):
        return sharedmem.Queue().get_many(timeout=timeout)

    @staticmethod
    def put(timeout):
        queue = sharedmem.Queue(1)
        queue.put(1)
        queue.put(2, timeout=timeout)

    @staticmethod
    def put_with_room(timeout):
        sharedmem.Queue().put(2, timeout=timeout)

    @staticmethod
    def put_many(timeout):
        sharedmem.Queue().put_many([1], timeout=timeout)

    @staticmethod
    def word(timeout):
        return atomics.wait(np.zeros(1, "i4"), 0, 0, timeout)

    @staticmethod
    def attach(timeout):
        return sharedmem.attach("nobody has made it", timeout=timeout)

    @staticmethod
    def get_or_create(timeout):
        return sharedmem.get_or_create("wrong waits", lambda: np.ones(1), timeout=timeout)


WAYS = [name for name in vars(Waits) if not name.startswith("_")]


@pytest.mark.parametrize("way", WAYS)
def test_timeouts_that_are_not_numbers(way):
    """The error has the name of the parameter, and what was given: its type, or the value."""
    wrong = (
        (NAN, ValueError, "nan"),
        (np.float64(NAN), ValueError, "nan"),
        ("1", TypeError, "str"),
        (1j, TypeError, "complex"),
    )
    for timeout, error, said in wrong:
        with pytest.raises(error, match=f"timeout must be a number of seconds or None, not .*{said}"):
            getattr(Waits, way)(timeout)


def test_the_error_of_latest_does_not_speak_of_negative_seconds():
    latest = sharedmem.Latest()
    for timeout, said in ((-1, "no array was put$"), (0, "no array was put$"), (0.01, r"within 0\.01 s$")):
        with pytest.raises(TimeoutError, match=said):
            latest.get(timeout=timeout)


def test_a_negative_timeout_of_names_is_refused():
    """Its meaning is not standardised; with it locks and queues do not wait, as multiprocessing's do not."""
    for way in (Waits.attach, Waits.get_or_create):
        with pytest.raises(ValueError, match="0 or more"):
            way(-1)
    assert sharedmem.names() == []


def test_what_a_put_refuses_is_not_put():
    queue = sharedmem.Queue()
    for call in (queue.put, lambda _, **options: queue.put_many([1], **options)):
        with pytest.raises(ValueError, match="timeout must be a number"):
            call(1, timeout=NAN)
    assert queue.qsize() == 0


@pytest.mark.parametrize("count", [1.5, NAN, "1", np.float64(2)], ids=repr)
def test_counts_are_integers(count):
    condition, word, queue = sharedmem.Condition(), np.zeros(1, "i4"), sharedmem.Queue()
    queue.put(1)
    with condition, pytest.raises(TypeError):
        condition.notify(count)
    with pytest.raises(TypeError):
        atomics.notify(word, 0, count)
    with pytest.raises(TypeError):
        queue.get_many(count)
    assert queue.get_many(2**70) == [1]


def test_counts_of_any_size():
    condition, word = sharedmem.Condition(), np.zeros(1, "i4")
    with condition:
        condition.notify(2**70)
        condition.notify(np.int8(1))
    assert atomics.notify(word, 0, 2**70) == 0
