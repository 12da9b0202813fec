"""Who holds a lock, in words, for `repr`."""

import os
import sys

if sys.platform == "win32":
    from sharedmem._windows import process_of_thread


def process_of(thread: int) -> int:
    """The pid of the process that a thread belongs to; 0: it has ended, or the system does not tell."""
    if sys.platform == "win32":
        return process_of_thread(thread)
    try:
        with open(f"/proc/{thread}/status", "rb") as file:
            for line in file:
                if line.startswith(b"Tgid:"):
                    return int(line[5:])
    except OSError:
        pass
    return 0


def owner_text(thread: int) -> str:
    """What a thread other than the calling one is to this process."""
    pid = process_of(thread)
    if pid == os.getpid():
        return "another thread of this process"
    return f"process {pid}" if pid else f"thread {thread}"
