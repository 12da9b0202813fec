"""Resident memory when the mixture of sizes changes again and again.

The trace ``shifting``: as in `fragmentation`, but the weights of small, medium
and large arrays change at every eighth of the trace, so that what survives of
one mixture lies between the blocks of the next.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..contenders.base import Contender
from ..model import Case, Sample, Setting
from .fragmentation import AMOUNTS, PLOT, replay


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    yield from replay(contender, setting, "shifting")


CASE = Case(
    name="fragmentation_shifting",
    title="{operations} operations on shifting sizes with {live} alive",
    measure=measure,
    contenders=("numpy", "sharedmem"),
    floor="numpy",
    doc=__doc__,
    amounts=AMOUNTS,
    plot=PLOT,
)
