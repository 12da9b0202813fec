"""Arrays of 10 and 100 float64 made by ``zeros``, ``ones`` and ``full``, and dropped.

Timed: the call, which sets the elements, and the drop, in a loop of `timeit`
after a warm-up. Not timed: imports and first use.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..contenders.base import Contender
from ..groups import CREATORS
from ..measuring import time_statement
from ..model import PEERS, Case, Goal, Sample, Setting

SIZES = (10, 100)
FUNCTIONS = ("zeros", "ones", "full")


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    for function in FUNCTIONS:
        for elements in SIZES:
            statement, names = contender.cycle(function, elements)
            seconds = time_statement(statement, names, setting.seconds)
            yield Sample(f"{function}({elements})", seconds)


POINTS = [f"{function}({elements})" for function in FUNCTIONS for elements in SIZES]

CASE = Case(
    name="create_filled_small",
    title="zeros, ones and full of 10 and 100 float64: create and drop",
    measure=measure,
    contenders=CREATORS,
    floor="numpy",
    doc=__doc__,
    goals=(
        *(Goal(point, "numpy", at_most=1.5) for point in POINTS),
        *(Goal(point, PEERS, better_by=80) for point in POINTS),
    ),
)
