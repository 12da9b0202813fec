"""A signal at a chosen moment whose handler raises, for tests of what an interrupted call leaves behind."""

import contextlib
import queue
import signal
import sys
import threading

import workers


@contextlib.contextmanager
def alarms(handler):
    """Gives a function: so many seconds after it is called, a signal calls `handler` in the main thread.

    Windows has no signal that comes after a time: there it is SIGINT, which another thread raises.
    """
    number = signal.SIGINT if sys.platform == "win32" else signal.SIGALRM
    before = signal.signal(number, handler)
    try:
        with _clock() if sys.platform == "win32" else _timer() as ring_after:
            yield ring_after
    finally:
        signal.signal(number, before)


@contextlib.contextmanager
def _timer():
    """The kernel's, of POSIX."""
    try:
        yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextlib.contextmanager
def _clock():
    """A thread that waits and then interrupts. It runs from the beginning, since `Thread.start` may fail in
    other ways when a signal's handler raises in it."""
    wanted, ended = queue.SimpleQueue(), threading.Event()

    def run():
        while (seconds := wanted.get()) is not None:
            if not ended.wait(seconds):
                workers.interrupt()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield wanted.put
    finally:
        signal.signal(signal.SIGINT, lambda *_: None)  # one that is under way disturbs no longer
        ended.set()
        wanted.put(None)
        thread.join()
