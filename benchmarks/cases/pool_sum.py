"""A large array given to eight pool workers, each of which sums an eighth.

Timed: handing the array to a pool that is already working and collecting the
eight sums: the first time, and again with the same array (median). Ordinary
ndarrays are sent in parts, since no worker needs the whole.
Not timed: making the array, starting the workers.

The floor is eight threads of one process.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from multiprocessing.pool import ThreadPool

import numpy as np

from ..contenders.base import Contender
from ..groups import SENDERS
from ..measuring import time_each, touch_and_free
from ..model import PEERS, Amount, Case, Goal, Sample, Setting
from ..transport import sum_part

THREADS = "threads"


def _times(call: Callable[[], float], setting: Setting) -> Iterator[Sample]:
    expected = setting["size"] // 8
    if call() != expected:
        raise AssertionError("the workers' sums are wrong")
    times = time_each(call, setting.repeats(8))
    yield Sample("again", statistics.median(times))


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    create, elements = contender.creator("ones"), setting["size"] // 8
    touch_and_free(setting["size"] * 5 // 2)
    if contender.inherited:
        item = create(elements)
        pool = contender.pool(setting["workers"], item)
    else:
        pool = contender.pool(setting["workers"])
        item = None
    with pool:
        if item is None:
            item = create(elements)
        first = time_each(lambda: pool.sum(item), 1)[0]
        yield Sample("first time", first)
        yield from _times(lambda: pool.sum(item), setting)
    contender.drop(item)


def threads(setting: Setting) -> Iterator[Sample]:
    touch_and_free(setting["size"] * 5 // 2)
    workers = setting["workers"]
    with ThreadPool(workers) as pool:
        pool.map(abs, range(4 * workers), chunksize=1)
        array = np.ones(setting["size"] // 8)

        def call() -> float:
            tasks = [(array, part, workers) for part in range(workers)]
            return sum(pool.starmap(sum_part, tasks, chunksize=1))

        yield Sample("first time", time_each(call, 1)[0])
        yield from _times(call, setting)


CASE = Case(
    name="pool_sum",
    title="{size} to {workers} pool workers that sum a part each",
    measure=measure,
    contenders=("sharedmem", "rawarray", *SENDERS[1:], "joblib"),
    floor=THREADS,
    floors={THREADS: threads},
    doc=__doc__,
    amounts={
        "size": Amount(1 << 30, 32 << 20),
        "workers": Amount(8, 8, "workers"),
    },
    goals=(
        Goal("again", THREADS, at_most=1.1),
        Goal("first time", THREADS, at_most=1.1),
        Goal("again", PEERS, better_by=1.5),
    ),
)
