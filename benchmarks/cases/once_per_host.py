"""A table that many workers need, made once by `get_or_create`.

Not timed: writing the file, starting the workers. Timed, from the moment at which
all of them are told to go on, by a pipe that is closed (the last of 64 that wait for an
Event of multiprocessing goes on 12 ms after it was set): until each has the table and has read its last
element. Compared with one process that does so alone, in the same run. The
table is loaded from a ``.npy`` file by ``sharedmem.load``, or filled by ``ones``, in
which several threads take part: no table is made quicker, so that there the
64 workers weigh most. The file has just been written, so that the system has
it in memory. "Resident" is the shared memory that all workers take together,
by the proportional set size.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import get_context
from typing import Any

import numpy as np

from ..contenders.base import Contender
from ..model import Amount, Case, Goal, Sample, Setting

LOADED, FILLED, RESIDENT, ALONE = "loaded", "filled", "resident", "one process alone"


def _share() -> int:
    """Bytes of shared memory that are this process's share."""
    with open("/proc/self/smaps_rollup") as table:
        return sum(int(line.split()[1]) * 1024 for line in table if line.startswith("Pss_Shmem"))


def _worker(name: str, size: int, path: str | None, start: tuple[int, int], answers: Any, end: Any) -> None:
    import sharedmem

    begin, go = start
    os.close(go)

    sharedmem.names()
    before = _share()
    answers.put(None)
    os.read(begin, 1)  # until the last end of the pipe is closed, which wakes all at once
    table = sharedmem.get_or_create(
        name, lambda: sharedmem.ones(size // 8) if path is None else sharedmem.load(path)
    )
    table[-1]
    answers.put(time.monotonic())
    end.wait()  # until all have it: a share is one of as many
    answers.put(_share() - before)
    end.wait()


def _round(workers: int, size: int, path: str | None) -> tuple[float, float]:
    context = get_context("fork")
    start, end, answers = os.pipe(), context.Barrier(workers + 1), context.Queue()
    name = f"benchmark-{os.getpid()}-table-{time.monotonic_ns()}"
    processes = [
        context.Process(target=_worker, args=(name, size, path, start, answers, end)) for _ in range(workers)
    ]
    for process in processes:
        process.start()
    for _ in processes:
        answers.get()
    began = time.monotonic()
    os.close(start[1])
    seconds = max(answers.get() for _ in processes) - began
    end.wait()
    resident = sum(answers.get() for _ in processes)
    end.wait()
    for process in processes:
        process.join()
    os.close(start[0])
    return seconds, resident


def _samples(workers: int, setting: Setting) -> Iterator[Sample]:
    size = setting["size"]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "table.npy")
        np.save(path, np.ones(size // 8))
        seconds, resident = min(_round(workers, size, path) for _ in range(3))
    yield Sample(LOADED, seconds)
    yield Sample(FILLED, min(_round(workers, size, None)[0] for _ in range(3)))
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
    goals=(Goal(LOADED, ALONE, at_most=1.2), Goal(RESIDENT, ALONE, at_most=1.1)),
)
