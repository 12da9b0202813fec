"""A video frame's worth of ``ones``, made and dropped again and again.

Timed: the call, which writes every element, and the drop, in a loop of
`timeit` after a warm-up: the steady state of a program that makes frames.
Not timed: the first frames.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..contenders.base import Contender
from ..groups import CREATORS
from ..measuring import time_statement
from ..model import PEERS, Amount, Case, Goal, Sample, Setting


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    statement, names = contender.cycle("ones", setting["size"] // 8)
    yield Sample("ones", time_statement(statement, names, 3 * setting.seconds))


CASE = Case(
    name="ones_frame",
    title="ones of {size}: create and drop, again and again",
    measure=measure,
    contenders=CREATORS,
    floor="numpy",
    doc=__doc__,
    amounts={"size": Amount(6 << 20, 6 << 20)},
    goals=(
        Goal("ones", "numpy", at_most=1.1),
        Goal("ones", PEERS, better_by=20),
    ),
)
