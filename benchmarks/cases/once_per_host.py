"""A table that many workers need, made once by `get_or_create`.

Not timed: starting the workers. Timed, from the moment at which all of them are
told to go on: until each has the table and has read its last element.
Compared with one process that makes it alone, in the same way and the same
run. Making it is filling new memory, which is as fast as a load can be: with a
slower one the ratios are better. "Resident" is the shared memory that all
workers take together, by the proportional set size.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from multiprocessing import get_context
from typing import Any

from ..contenders.base import Contender
from ..model import Amount, Case, Goal, Sample, Setting

TIME, RESIDENT, ALONE = "until all have it", "resident", "one process alone"


def _share() -> int:
    """Bytes of shared memory that are this process's share."""
    with open("/proc/self/smaps_rollup") as table:
        return sum(int(line.split()[1]) * 1024 for line in table if line.startswith("Pss_Shmem"))


def _worker(name: str, size: int, start: Any, answers: Any, end: Any) -> None:
    import sharedmem

    sharedmem.names()
    before = _share()
    answers.put(None)
    start.wait()
    table = sharedmem.get_or_create(name, lambda: sharedmem.ones(size // 8))
    table[-1]
    answers.put(time.monotonic())
    end.wait()  # until all have it: a share is one of as many
    answers.put(_share() - before)
    end.wait()


def _round(workers: int, size: int) -> tuple[float, float]:
    context = get_context("fork")
    start, end, answers = context.Event(), context.Barrier(workers + 1), context.Queue()
    name = f"benchmark-{os.getpid()}-table-{time.monotonic_ns()}"
    processes = [
        context.Process(target=_worker, args=(name, size, start, answers, end)) for _ in range(workers)
    ]
    for process in processes:
        process.start()
    for _ in processes:
        answers.get()
    began = time.monotonic()
    start.set()
    seconds = max(answers.get() for _ in processes) - began
    end.wait()
    resident = sum(answers.get() for _ in processes)
    end.wait()
    for process in processes:
        process.join()
    return seconds, resident


def _samples(workers: int, setting: Setting) -> Iterator[Sample]:
    seconds, resident = min(_round(workers, setting["size"]) for _ in range(3))
    yield Sample(TIME, seconds)
    yield Sample(RESIDENT, resident, "bytes")


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    yield from _samples(setting["workers"], setting)


def alone(setting: Setting) -> Iterator[Sample]:
    yield from _samples(1, setting)


CASE = Case(
    name="once_per_host",
    title="a table of {size} in {workers} workers",
    measure=measure,
    contenders=("sharedmem",),
    floor=ALONE,
    floors={ALONE: alone},
    doc=__doc__,
    amounts={"size": Amount(1 << 30, 64 << 20), "workers": Amount(64, 4, "processes")},
    goals=(Goal(TIME, ALONE, at_most=1.2), Goal(RESIDENT, ALONE, at_most=1.1)),
)
