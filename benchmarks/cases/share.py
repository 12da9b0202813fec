"""`sharedmem.share` of an object, against a plain copy of the data in it.

Timed: the call, and the drop of what it returned; the median of several, after one that is not timed. The
floor copies as many bytes by `np.copy`, from one array that lives throughout, and drops the copy.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import numpy as np

from ..contenders.base import Contender
from ..measuring import time_each
from ..model import Amount, Case, Goal, Sample, Setting
from ..objects import arrays, frame

COPY = "np.copy"
KINDS = {"an array": lambda nbytes: np.ones(nbytes // 8), "dict of arrays": arrays}


def made(setting: Setting) -> Iterator[tuple[str, object]]:
    for name, make in KINDS.items():
        yield name, make(setting["size"])
    try:
        yield "DataFrame", frame(setting["size"])
    except ModuleNotFoundError:
        return


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    import sharedmem

    for name, obj in made(setting):
        times = time_each(lambda obj=obj: sharedmem.share(obj), setting.repeats(20, 3) + 1)
        yield Sample(name, statistics.median(times[1:]))


def copy(setting: Setting) -> Iterator[Sample]:
    data = np.ones(setting["size"] // 8)
    times = time_each(lambda: np.copy(data), setting.repeats(20, 3) + 1)
    for name, _ in made(setting):
        yield Sample(name, statistics.median(times[1:]))


CASE = Case(
    name="share",
    title="share of objects of {size}, and the copy of as many bytes",
    measure=measure,
    contenders=("sharedmem",),
    floor=COPY,
    floors={COPY: copy},
    doc=__doc__,
    amounts={"size": Amount(100_000_000, 8_000_000)},
    goals=(Goal("an array", COPY, at_most=1.3), Goal("DataFrame", COPY, at_most=1.3)),
)
