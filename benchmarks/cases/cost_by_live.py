"""The cost of an operation against the number of arrays alive.

Timed, with so many arrays of 100 float64 alive: making one more and dropping
it (`timeit`), and replacing one of them, chosen at random, by a new one. The
second reads memory all over, which costs plain NumPy the same: compare.
Not timed: making the live arrays, drawing the random numbers.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from ..contenders.base import Contender
from ..measuring import time_statement
from ..model import Amount, Case, Goal, Plot, Sample, Setting

COUNTS = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
CYCLE, REPLACE = "create and drop", "replace one at random"
GROWTH = f"{CYCLE}: most alive / fewest"


def _replace(create: Callable[[int], Any], items: list[Any], places: list[int]) -> None:
    for place in places:
        items[place] = create(100)


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    create = contender.creator("empty")
    statement, names = contender.cycle("empty", 100)
    chance = random.Random(7)
    items: list[Any] = []
    cycles = []
    for count in COUNTS:
        if count > setting["most"]:
            break
        items.extend(create(100) for _ in range(count - len(items)))
        cycles.append(time_statement(statement, names, setting.seconds))
        yield Sample(f"{CYCLE}, {count:,}", cycles[-1], x=count, series=CYCLE)
        places = chance.choices(range(count), k=setting.repeats(50_000, 2_000))
        times = []
        for _ in range(5):
            start = time.perf_counter()
            _replace(create, items, places)
            times.append((time.perf_counter() - start) / len(places))
        each = statistics.median(times)
        yield Sample(f"{REPLACE}, {count:,}", each, x=count, series=REPLACE)
    yield Sample(GROWTH, cycles[-1] / cycles[0], "ratio")


CASE = Case(
    name="cost_by_live",
    title="cost of an operation with 10 to {most} arrays alive",
    measure=measure,
    contenders=("numpy", "sharedmem", "rawarray"),
    floor="numpy",
    doc=__doc__,
    amounts={"most": Amount(1_000_000, 1_000, "arrays")},
    goals=(Goal(GROWTH, at_most=1.2),),
    plot=Plot("arrays alive", "seconds an operation"),
)
