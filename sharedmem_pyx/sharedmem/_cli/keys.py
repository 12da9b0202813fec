"""Keys that are pressed while ``python -m sharedmem top`` runs."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator

if sys.platform == "win32":
    import msvcrt
else:
    import select
    import termios
    import tty


@contextlib.contextmanager
def quitting() -> Iterator[Callable[[float], bool]]:
    """A function that waits that many seconds for a key, and returns whether it is one that ends `top`.

    Where standard input is no terminal, it waits only.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        yield _wait
    elif sys.platform == "win32":
        yield _pressed_in_console
    else:
        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
        try:
            tty.setcbreak(descriptor)
            yield lambda seconds: _pressed_in_terminal(descriptor, seconds)
        finally:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _wait(seconds: float) -> bool:
    time.sleep(seconds)
    return False


if sys.platform == "win32":

    def _pressed_in_console(seconds: float) -> bool:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not msvcrt.kbhit():
                time.sleep(min(left, 0.05))
            elif msvcrt.getwch() in "qQ":
                return True
        return False

else:

    def _pressed_in_terminal(descriptor: int, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([descriptor], [], [], left)[0]:
                key = os.read(descriptor, 1)
                if key in (b"q", b"Q", b""):
                    return True
        return False
