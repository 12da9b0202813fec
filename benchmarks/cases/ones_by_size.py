"""``ones`` from 64 bytes up: the cost of making and dropping, against size.

Timed: the call and the drop in a loop of `timeit`, after a warm-up: the
steady state. Not timed: the first array of each size.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..contenders.base import Contender
from ..groups import CREATORS
from ..measuring import time_statement, touch_and_free
from ..model import Amount, Case, Plot, Sample, Setting, human_bytes

SIZES = tuple(64 << shift for shift in range(0, 24, 2))


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    touch_and_free(setting["largest"] * 5 // 2)
    for size in SIZES:
        if size > setting["largest"]:
            break
        statement, names = contender.cycle("ones", size // 8)
        seconds = time_statement(statement, names, setting.seconds)
        yield Sample(human_bytes(size), seconds, x=size)


CASE = Case(
    name="ones_by_size",
    title="ones of 64 bytes to {largest}: create and drop",
    measure=measure,
    contenders=CREATORS,
    floor="numpy",
    doc=__doc__,
    amounts={"largest": Amount(256 << 20, 4 << 20)},
    plot=Plot("bytes of the array", "seconds to create and drop"),
)
