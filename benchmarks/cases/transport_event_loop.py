"""Arrays that an asyncio program sends to a ProcessPoolExecutor and gets back, and how long its loop stops.

Timed: `loop.run_in_executor` of several arrays at once, until all results are there, by an executor of two
processes that run already. Meanwhile a task of the same loop sleeps for a millisecond, over and over: what
its longest sleep took beyond that is the longest stop. Medians of several; pickle, ``sharedmem.transport()``
and ``transport(copy=False)`` take turns within one process. Not timed: making the arrays.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from ..contenders.base import Contender
from ..model import Amount, Case, Goal, Sample, Setting
from ..transport import FORK
from .transport_by_size import WAYS, echo, switched

TICK = 0.001


async def _beat(longest: list[float]) -> None:
    while True:
        start = time.perf_counter()
        await asyncio.sleep(TICK)
        longest[0] = max(longest[0], time.perf_counter() - start - TICK)


async def _send(executor: ProcessPoolExecutor, arrays: list[np.ndarray]) -> tuple[float, float]:
    """Seconds until all arrays are back, and the longest stop of the loop meanwhile."""
    loop, longest = asyncio.get_running_loop(), [0.0]
    beat = asyncio.create_task(_beat(longest))
    await asyncio.sleep(2 * TICK)
    longest[0] = 0.0
    start = time.perf_counter()
    back = await asyncio.gather(*(loop.run_in_executor(executor, echo, each) for each in arrays))
    await asyncio.sleep(0)  # a stop that is going on ends here
    taken = time.perf_counter() - start
    beat.cancel()
    if [each[0] for each in back] != [each[0] for each in arrays]:
        raise RuntimeError("the arrays did not arrive as they were sent")
    return taken, longest[0]


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    module: Any = contender.module  # type: ignore[attr-defined]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    with contextlib.ExitStack() as stack:
        executors = {}
        for name, keywords in WAYS.items():
            with switched(module, keywords):
                executors[name] = stack.enter_context(ProcessPoolExecutor(2, FORK))
                list(executors[name].map(abs, range(8)))
        for turn in range(setting.repeats(5, 1) + 1):
            for name, keywords in WAYS.items():
                arrays = [np.full(setting["size"] // 8, float(i)) for i in range(setting["arrays"])]
                with switched(module, keywords):
                    measured = asyncio.run(_send(executors[name], arrays))
                if turn > 0:
                    found[name].append(measured)
                del arrays
    medians = {
        name: [statistics.median(figures) for figures in zip(*each, strict=True)]
        for name, each in found.items()
    }
    for name, (taken, stop) in medians.items():
        yield Sample(f"all back, {name}", taken)
        yield Sample(f"longest stop, {name}", stop)
    for name in ("transport()", "transport(copy=False)"):
        yield Sample(f"all back, {name}, times", medians["pickle"][0] / medians[name][0], unit="times")


CASE = Case(
    name="transport_event_loop",
    title="{arrays} arrays of {size} to a ProcessPoolExecutor and back, by asyncio",
    measure=measure,
    contenders=("sharedmem",),
    floor="sharedmem",
    doc=__doc__,
    amounts={"size": Amount(64 << 20, 1 << 20), "arrays": Amount(8, 4, "arrays")},
    goals=(Goal("longest stop, transport()", at_most=0.050),),
)
