"""Clocks and counters that the cases share."""

from __future__ import annotations

import mmap
import os
import statistics
import time
import timeit
from collections.abc import Callable, Mapping

import numpy as np

PAGE = mmap.PAGESIZE


def touch_and_free(nbytes: int) -> None:
    """Writes a byte to each page of `nbytes` private bytes and gives them back.

    A virtual machine may have returned free pages to its host; the next touch
    of such a page costs ten times more. Called just before the clock of a
    first-touch measurement starts, for every contender alike.
    """
    region = mmap.mmap(-1, nbytes)
    view = np.frombuffer(region, np.uint8)
    view[::PAGE] = 1
    del view
    region.close()


def time_statement(statement: str, namespace: Mapping[str, object], seconds: float) -> float:
    """Median seconds of one execution of `statement`, over five repetitions.

    The garbage collector is off meanwhile, as always with `timeit`.
    """
    timer = timeit.Timer(statement, globals=dict(namespace))
    timer.timeit(3)
    once = timer.timeit(1)
    number = max(1, min(1_000_000, int(seconds / 5 / max(once, 1e-8))))
    if number > 100:
        number = max(1, int(number * (seconds / 5) / max(timer.timeit(number), 1e-8)))
    return statistics.median(timer.repeat(5, number)) / number


def time_each(function: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each of `repeats` calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return times


def read_pages(array: np.ndarray) -> int:
    """Reads one byte of each page of a contiguous array."""
    return int(np.bitwise_or.reduce(array.reshape(-1).view(np.uint8)[::PAGE]))


def touch_pages(array: np.ndarray) -> None:
    """Writes one byte to each page of a contiguous array, and the first byte."""
    array.reshape(-1).view(np.uint8)[::PAGE] = 1


def resident_bytes() -> int:
    """Resident bytes of this process: private, file and shared memory."""
    total = 0
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(("RssAnon:", "RssFile:", "RssShmem:")):
                total += int(line.split()[1]) * 1024
    return total


def descriptors() -> int:
    """Open file descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def mappings() -> int:
    """Mappings in the address space of this process."""
    with open("/proc/self/maps", errors="replace") as maps:
        return sum(1 for _ in maps)
