"""Allocating and freeing from 1, 2, 4, ... 64 processes at once.

Each process keeps 64 arrays of 64 bytes to 64 KiB and replaces one after the
other by a new one from ``empty``, for a fixed time that is the same for all
and starts once all are ready. Rates are replacements a second of all
processes together; "scaling" is the rate of most processes over that of one,
in the same run. Plain NumPy shows what malloc does in as many processes.
Not timed: starting the processes, making their first arrays.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

from ..contenders.base import Contender
from ..model import Amount, Case, Goal, Plot, Sample, Setting
from ..transport import FORK, start_tracker

COUNTS = (1, 2, 4, 8, 16, 32, 64)
PLACES = 64
SCALING = "scaling: most processes / one"


def _sizes(seed: int) -> list[int]:
    """Elements of 1024 arrays, their bytes log-uniform from 64 to 64 KiB."""
    chance = random.Random(seed)
    return [int(2 ** chance.uniform(3, 13)) for _ in range(1024)]


def _replace_until(contender: Contender, connection: Any, seed: int) -> None:
    create, drop = contender.creator("empty"), contender.drop
    frees = type(contender).drop is not Contender.drop
    sizes = _sizes(seed)
    items = [create(size) for size in sizes[:PLACES]]
    steps = [(number % PLACES, size) for number, size in enumerate(sizes)]
    connection.send(True)
    start, end = connection.recv()
    time.sleep(max(0.0, start - time.perf_counter()))
    count = 0
    now = time.perf_counter()
    while now < end:
        if frees:
            for place, size in steps[:64]:
                drop(items[place])
                items[place] = create(size)
            count += 64
        else:
            for place, size in steps:
                items[place] = create(size)
            count += len(steps)
        now = time.perf_counter()
    connection.send((count, now))
    for item in items:
        drop(item)


def rate(contender: Contender, processes: int, seconds: float) -> float:
    """Replacements a second of `processes` processes together."""
    connections, workers = [], []
    for seed in range(processes):
        here, there = FORK.Pipe()
        worker = FORK.Process(target=_replace_until, args=(contender, there, seed), daemon=True)
        worker.start()
        there.close()
        here.recv()
        connections.append(here)
        workers.append(worker)
    start = time.perf_counter() + 0.05
    for connection in connections:
        connection.send((start, start + seconds))
    counts, ends = zip(*(connection.recv() for connection in connections), strict=True)
    for worker in workers:
        worker.join()
    return sum(counts) / (max(ends) - start)


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    start_tracker()
    rates = []
    for count in COUNTS:
        if count > setting["most"]:
            break
        rates.append(rate(contender, count, 0.1 if setting.quick else 1.0))
        yield Sample(f"{count} processes", rates[-1], "1/s", x=count)
    yield Sample(SCALING, rates[-1] / rates[0], "times")


CASE = Case(
    name="scaling",
    title="allocate and free from 1 to {most} processes at once",
    measure=measure,
    contenders=("numpy", "sharedmem", "rawarray", "shared_memory", "SharedArray"),
    floor="numpy",
    doc=__doc__,
    amounts={"most": Amount(64, 4, "processes")},
    goals=(Goal(SCALING, "numpy", at_least=0.9),),
    plot=Plot("processes", "replacements a second"),
)
