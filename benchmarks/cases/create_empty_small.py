"""An array of 100 float64 made by ``empty`` and dropped at once, again and again.

Timed: the call and the drop, in a loop of `timeit` after a warm-up. For
libraries whose arrays need a call to be freed, that call too.
Not timed: imports, first use, writing to the array.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..contenders.base import Contender
from ..groups import CREATORS
from ..measuring import time_statement
from ..model import PEERS, Amount, Case, Goal, Sample, Setting


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    statement, names = contender.cycle("empty", setting["elements"])
    yield Sample("empty", time_statement(statement, names, setting.seconds))


CASE = Case(
    name="create_empty_small",
    title="empty({elements}) of float64: create and drop",
    measure=measure,
    contenders=CREATORS,
    floor="numpy",
    doc=__doc__,
    amounts={"elements": Amount(100, 100, "elements")},
    goals=(
        Goal("empty", "numpy", at_most=1.5),
        Goal("empty", PEERS, better_by=80),
    ),
)
