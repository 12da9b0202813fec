"""The most memory that a Pool and its parent hold while `Pool.map` sends arrays, or gets them back.

A Pool of two is started first, then the arrays are made, where the parent sends them: neither counts. What
counts is the greatest sum of the processes' proportional set sizes, in which memory that several of them have
counts once, less that sum before the call. It is read every few milliseconds by another process, so that a
peak between two looks may be missed. Results are all kept by the parent, as `Pool.map` does. Each way is
measured in a process of its own, which has used no shared memory before.

``max_in_flight`` is four arrays. "more / max_in_flight" is what a way holds beyond pickle, in units of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..contenders.base import Contender
from ..model import Amount, Case, Goal, Sample, Setting
from ..peak_memory import memory
from ..transport import FORK
from .transport_by_size import WAYS, switched

WORKERS = 2


def take(array: np.ndarray) -> float:
    return float(array.sum())


def give(elements: int) -> np.ndarray:
    return np.ones(elements)


def _map(
    conn: Any, module: Any, keywords: dict[str, Any] | None, what: str, elements: int, count: int
) -> None:
    with switched(module, keywords), FORK.Pool(WORKERS) as pool:
        pool.map(abs, range(WORKERS * 4), chunksize=1)
        function: Any = take if what == "arguments" else give
        items = [np.ones(elements) if what == "arguments" else elements for _ in range(count)]
        conn.send([process.pid for process in pool._pool])  # type: ignore[attr-defined]
        conn.recv()
        results = pool.map(function, items, chunksize=1)
        conn.send(float(np.sum([np.sum(each) for each in results])))
        conn.recv()


def peak(module: Any, keywords: dict[str, Any] | None, what: str, setting: Setting) -> int:
    """Bytes that one call of `Pool.map` takes at most."""
    ours, theirs = FORK.Pipe()
    elements, count = setting["size"] // 8, setting["arrays"]
    process = FORK.Process(target=_map, args=(theirs, module, keywords, what, elements, count))
    process.start()
    theirs.close()
    pids = [process.pid, *ours.recv()]
    before = most = memory(pids)
    ours.send("go")
    while not ours.poll(0.002):
        most = max(most, memory(pids))
    if ours.recv() != elements * count:
        raise RuntimeError("the arrays did not arrive as they were sent")
    most = max(most, memory(pids))
    ours.send("end")
    process.join()
    ours.close()
    return most - before


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    limit = 4 * setting["size"]
    for what in ("arguments", "results"):
        found = {}
        for way, keywords in WAYS.items():
            bounded = None if keywords is None else {**keywords, "max_in_flight": limit}
            found[way] = peak(contender.module, bounded, what, setting)  # type: ignore[attr-defined]
            yield Sample(f"{what}, {way}", found[way], unit="bytes")
        for way, keywords in WAYS.items():
            if keywords is not None:
                more = (found[way] - found["pickle"]) / limit
                yield Sample(f"{what}, {way}, more / max_in_flight", more, unit="ratio")


CASE = Case(
    name="transport_memory",
    title="peak memory of Pool.map over {arrays} arrays of {size}",
    measure=measure,
    contenders=("sharedmem",),
    floor="sharedmem",
    doc=__doc__,
    amounts={"size": Amount(64 << 20, 4 << 20), "arrays": Amount(8, 8, "arrays")},
    goals=tuple(
        Goal(f"{what}, {way}, more / max_in_flight", at_most=1.0)
        for what in ("arguments", "results")
        for way in ("transport()", "transport(copy=False)")
    ),
)
