"""Signal handlers that raise at any moment of a ``with`` statement: the next caller gets the lock."""

import sys
import threading
import time

import pytest
import support
from alarms import alarms

import sharedmem


class Interrupt(Exception):
    pass


def interrupt(number, frame):
    raise Interrupt


def is_free(lock):
    """Whether another thread can take it."""
    got = []

    def take():
        if lock.acquire(False):
            lock.release()
            got.append(True)

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return got == [True]


@pytest.mark.xfail(
    sys.version_info >= (3, 14), reason="Python may skip __exit__: python/cpython#148874", strict=False
)
@pytest.mark.parametrize("kind", ["Lock", "RLock", "Condition", "Condition(Lock)"])
def test_a_with_statement_leaves_the_lock_free(kind):
    lock = sharedmem.Condition(sharedmem.Lock()) if "(" in kind else getattr(sharedmem, kind)()

    def use(interrupt_after):
        end = time.monotonic() + support.TIMEOUT
        ring_after(interrupt_after)
        while time.monotonic() < end:
            with lock:
                pass

    with alarms(interrupt) as ring_after:
        for i in range(300):
            with pytest.raises(Interrupt):
                use(1e-5 + i * 1e-6)
            assert is_free(lock), f"in round {i}"
