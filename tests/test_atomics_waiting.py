"""sharedmem.atomics.wait and notify, and other threads meanwhile."""

import sys
import threading
import time

import numpy as np
import pytest
import support
import workers

import sharedmem
from sharedmem import atomics


@pytest.mark.parametrize("dtype", ["i4", "u4"])
def test_a_wait_returns_at_once_if_the_value_is_another(dtype):
    a = sharedmem.full(2, 5, dtype)
    assert atomics.wait(a, 1, 4) is True
    assert atomics.wait(a, 1, 4, timeout=-1) is True


@pytest.mark.parametrize("timeout", [0, -1, -np.inf, 0.01, 0.25, np.float32(0.1)])
def test_a_timeout(timeout):
    begin = time.monotonic()
    assert atomics.wait(sharedmem.zeros(1, "i4"), 0, 0, timeout) is False
    assert time.monotonic() - begin >= min(timeout, 0.25) - 1e-6


def test_negative_values_are_waited_for():
    assert not atomics.wait(sharedmem.full(1, -3, "i4"), 0, -3, 0)
    assert atomics.wait(sharedmem.full(1, -3, "i4"), 0, 3, 0)


@pytest.mark.parametrize("dtype", ["i8", "u8", "i2", "f4", "f8", "?"])
def test_the_kernel_waits_for_words_of_32_bits(dtype):
    with pytest.raises(TypeError, match="int32 and uint32"):
        atomics.wait(sharedmem.zeros(1, dtype), 0, 0, 0)
    with pytest.raises(TypeError, match="int32 and uint32"):
        atomics.notify(sharedmem.zeros(1, dtype), 0)


def test_wrong_arguments_of_wait_and_notify():
    a = sharedmem.zeros(1, "i4")
    for timeout in ("1", [1], 1j):
        with pytest.raises(TypeError):
            atomics.wait(a, 0, 0, timeout)
    with pytest.raises(ValueError, match="timeout must be a number"):
        atomics.wait(a, 0, 0, np.nan)
    with pytest.raises(OverflowError):
        atomics.wait(a, 0, 2**31, 0)
    with pytest.raises(ValueError, match="-1"):
        atomics.notify(a, 0, -1)
    with pytest.raises(TypeError):
        atomics.notify(a, 0, "all")
    assert atomics.notify(a, 0) == 0
    assert atomics.notify(a, 0, 10**30) == 0
    assert atomics.notify(a, 0, 0) == 0


def wait_for(word, woken, value):
    answer = atomics.wait(word, 0, value)
    atomics.add(woken, 0, 1)
    return answer


@pytest.mark.parametrize("kind", support.KINDS)
def test_a_process_is_woken(kind):
    word, woken = sharedmem.zeros(1, "i4"), sharedmem.zeros(1, "i4")
    with support.Remote(kind) as remote:
        remote.conn.send((wait_for, (word, woken, 0)))
        time.sleep(0.02)
        assert atomics.load(woken, 0) == 0
        atomics.store(word, 0, 1)
        atomics.notify(word, 0)
        assert remote.result() is True


def test_a_notification_without_a_change_does_not_end_a_wait():
    word, woken = sharedmem.zeros(1, "i4"), sharedmem.zeros(1, "i4")
    thread = threading.Thread(target=wait_for, args=(word, woken, 0))
    thread.start()
    for _ in range(2):  # it sleeps again
        if sys.platform == "win32":  # which does not tell how many it wakes
            time.sleep(0.1)
            assert atomics.notify(word, 0, 1) == 0
        else:
            assert support.wait_until(lambda: atomics.notify(word, 0, 1) == 1)
    assert atomics.load(woken, 0) == 0
    atomics.store(word, 0, 7)  # a process that died before `notify` leaves no other asleep
    thread.join(support.TIMEOUT)
    assert not thread.is_alive()


def test_ctrl_c_ends_a_wait():
    a = sharedmem.zeros(1, "i4")
    timer = threading.Timer(0.05, workers.interrupt)

    def wait():
        timer.start()
        atomics.wait(a, 0, 0)

    with pytest.raises(KeyboardInterrupt):
        wait()
    timer.join()


def test_other_threads_run_meanwhile():
    a = sharedmem.zeros(1, "i4")
    thread = threading.Thread(target=atomics.store, args=(a, 0, 1))
    threading.Timer(0.02, thread.start).start()
    assert atomics.wait(a, 0, 0, support.TIMEOUT)
    thread.join()


def test_values_and_indices_are_those_at_the_time_of_the_call():
    """As `np.add.at` does: neither indices nor values change while elements of theirs are added to."""
    ours, numpys = sharedmem.array(np.arange(10)), np.arange(10)
    for a, add_at in ((ours, sharedmem.atomics.add_at), (numpys, np.add.at)):
        add_at(a, np.array([0, 1, 2, 3]), a[[3, 0, 1, 2]])
        add_at(a, np.array([5, 6, 7, 8]), a[4:8])
        add_at(a[:4], a[:4] % 4, 1)
        a[:] = np.arange(10)[::-1]
        add_at(a, a, 1)
    assert ours.tolist() == numpys.tolist()
