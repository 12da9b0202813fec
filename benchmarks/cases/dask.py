"""Arrays and small tasks in a Dask cluster of two workers, by Dask's protocol and by "sharedmem".

Both clusters live in one program, and take turns, call by call, so that both meet the same moments of the
machine. A point has the fastest of these calls. `benchmarks.dask_clusters` says what is done with one array,
and what each way is; in "tcp" these are NumPy's arrays. Timed is a call from asking for it to having its
result: a task on another worker ("worker to worker", "broadcast") contains a round trip to the scheduler. Not
timed: starting clusters, making arrays, forgetting results.

"tasks": as many tasks that do nothing. "8 kB arrays": as many arrays of 1000 numbers, which one worker has
and tasks on the other one take. Neither can gain by shared memory: their points say how much longer they
take.

Points that end in "times tcp" say how often a way's time fits into that of tcp.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..contenders.base import Contender
from ..dask_clusters import PAGE, TRANSFERS, WAYS, Cluster, clusters
from ..model import Amount, Case, Goal, Sample, Setting

LITTLE = 1000  # numbers in an array of 8 kB

#: The times of tcp for a large array of NumPy and of this library.
GOALS = {
    "worker to worker": (4, 8),
    "gather": (2, 20),
    "scatter": (2.5, 40),
    "broadcast": (2, 10),
}


def small_tasks(cluster: Cluster, count: int) -> float:
    """Seconds of tasks that do nothing."""
    client = cluster.client
    start = time.perf_counter()
    found = client.gather(client.map(abs, range(count), pure=False))
    taken = time.perf_counter() - start
    if found != list(range(count)):
        raise RuntimeError("the results are not those of the tasks")
    return taken


def little_arrays(cluster: Cluster, count: int) -> float:
    """Seconds of tasks that take an array of 8 kB each from the other worker."""
    client = cluster.client
    made = client.map(np.ones, [LITTLE] * count, workers=[cluster.workers[0]], pure=False)
    cluster.wait_for(made)
    start = time.perf_counter()
    found = client.gather(client.map(len, made, workers=[cluster.workers[1]], pure=False))
    taken = time.perf_counter() - start
    if found != [LITTLE] * count:
        raise RuntimeError("the arrays did not arrive as they were sent")
    return taken


def best_of(calls: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """The fewest seconds that each of some calls took, which take turns; the first turn does not count."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            taken = call()
            if turn:
                times[name].append(taken)
    return {name: min(each) for name, each in times.items()}


def transfer(both: dict[str, Cluster], what: str, way: str, nbytes: int) -> Callable[[], float]:
    """A call that does something with one array, and gives its seconds."""
    protocol, make = WAYS[way]
    cluster = both[protocol]

    def call() -> float:
        taken, found = TRANSFERS[what](cluster, make, nbytes)
        if found != -(-nbytes // PAGE):
            raise RuntimeError(f"{what}, {way}: the array did not arrive as it was sent")
        cluster.settle()
        return taken

    return call


def many(cluster: Cluster, function: Callable[[Cluster, int], float], count: int) -> Callable[[], float]:
    """A call that runs many small tasks, and gives their seconds."""

    def call() -> float:
        taken = function(cluster, count)
        cluster.settle()
        return taken

    return call


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    repeats = {"small": setting["small_repeats"], "large": setting["large_repeats"]}
    with clusters() as both:
        for name, function, count in (
            ("tasks", small_tasks, setting["tasks"]),
            ("8 kB arrays", little_arrays, setting["arrays"]),
        ):
            best = best_of(
                {protocol: many(cluster, function, count) for protocol, cluster in both.items()},
                repeats["small"],
            )
            for protocol, found in best.items():
                yield Sample(f"{name}, {protocol}", found)
            yield Sample(f"{name}, sharedmem / tcp", best["sharedmem"] / best["tcp"], "ratio")
        for size in repeats:
            for what in TRANSFERS:
                calls = {way: transfer(both, what, way, setting[size]) for way in WAYS}
                yield from samples(f"{size}, {what}", best_of(calls, repeats[size]))
        _check(both)


def samples(point: str, best: dict[str, Any]) -> Iterator[Sample]:
    for way, found in best.items():
        yield Sample(f"{point}, {way}", found)
    for way in list(WAYS)[1:]:
        yield Sample(f"{point}, {way}, times tcp", best["tcp"] / best[way], "times")


def _check(both: dict[str, Cluster]) -> None:
    """Each cluster has sent arrays as its protocol says."""
    went = {protocol: cluster.by_handle() for protocol, cluster in both.items()}
    if went != {"tcp": False, "sharedmem": True}:
        raise RuntimeError(f"what went by handle is not what was to be measured: {went}")


CASE = Case(
    name="dask",
    title="Dask, two workers, one array of {small} or {large}, {tasks} small tasks, {arrays} arrays of 8 kB",
    measure=measure,
    contenders=("sharedmem",),
    floor="sharedmem",
    doc=__doc__,
    amounts={
        "small": Amount(6 << 20, 1 << 20),
        "large": Amount(256 << 20, 8 << 20),
        "small_repeats": Amount(9, 2, "times"),
        "large_repeats": Amount(4, 2, "times"),
        "tasks": Amount(1000, 50, "tasks"),
        "arrays": Amount(200, 20, "arrays"),
    },
    goals=(
        Goal("tasks, sharedmem / tcp", at_most=1.03),
        Goal("8 kB arrays, sharedmem / tcp", at_most=1.03),
        Goal("small, gather, NumPy's arrays, times tcp", at_least=2),
        *(
            Goal(f"large, {what}, {way}, times tcp", at_least=least)
            for what, leasts in GOALS.items()
            for way, least in zip(("NumPy's arrays", "our arrays"), leasts, strict=True)
        ),
    ),
    timeout=1800.0,
    needs=("distributed",),
)
