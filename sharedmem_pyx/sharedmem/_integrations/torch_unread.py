"""Unread messages of workers of torch's DataLoader when these are stopped.

A loop over a DataLoader that ends early leaves batches in the pipe of its workers, which end, too. A message
of a dead process that was not read yet cannot be distinguished from one that will never be read, so its
memory would be kept until memory is short. But the process that stops the workers is the only reader of that
pipe: it reads the rest, and frees its memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import struct
import termios
from types import ModuleType
from typing import Any

from sharedmem import _in_flight


def _bytes_in_pipe(fd: int) -> int:
    answer = fcntl.ioctl(fd, termios.FIONREAD, bytes(4))
    number: int = struct.unpack("i", answer)[0]
    return number


def _read_all(fd: int) -> bytes:
    """The current contents of a pipe. It never waits, since the writing end may stay open for long."""
    parts = []
    while (size := _bytes_in_pipe(fd)) > 0:
        part = os.read(fd, size)
        if not part:
            break
        parts.append(part)
    return b"".join(parts)


def _discard_all(data: bytes) -> None:
    """Drop messages of a `multiprocessing.connection.Connection`, which puts the size before each."""
    at = 0
    while at + 4 <= len(data):
        (size,) = struct.unpack_from("!i", data, at)
        at += 4
        if size == -1:  # of more than 2 GiB; the size follows
            return
        # The last one may be incomplete, if its writer was killed.
        _in_flight.discard(data[at : at + size])
        at += size


def _is_parent_of(workers: list[Any]) -> bool:
    return all(each._parent_pid == os.getpid() for each in workers)


def watch_loaders(module: ModuleType) -> None:
    """Make the iterators of `torch.utils.data.dataloader` free the messages that their workers leave."""
    owner: Any = module
    cls = owner._MultiProcessingDataLoaderIter
    plain = cls._shutdown_workers

    @functools.wraps(plain)
    def shutdown_workers(self: Any) -> None:
        rest = None
        # A forked child may drop its copy of the iterator; it is not the reader of that pipe.
        if not getattr(self, "_shutdown", True) and _is_parent_of(self._workers):
            # A duplicate, because torch closes the queue if it pins memory.
            with contextlib.suppress(AttributeError, OSError, TypeError):
                rest = os.dup(self._worker_result_queue._reader._handle)
        try:
            plain(self)
        finally:
            if rest is not None:
                try:
                    if self._shutdown:
                        _discard_all(_read_all(rest))
                finally:
                    os.close(rest)

    cls._shutdown_workers = shutdown_workers
