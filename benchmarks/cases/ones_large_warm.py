"""A large array of ``ones``, made when one as large has been dropped before.

Timed: each call after two warm-up ones, and as a point of its own each drop.
Before the warm-up, two and a half times as much private memory is touched
and given back.

The floor "fill of touched memory" writes 1.0 to an array whose pages are
there already: what remains when no page has to be found.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import numpy as np

from ..contenders.base import Contender
from ..groups import CREATORS
from ..measuring import time_each, touch_and_free
from ..model import Amount, Case, Goal, Sample, Setting

REPEATS = 5


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    create, elements = contender.creator("ones"), setting["size"] // 8
    touch_and_free(setting["size"] * 5 // 2)
    creates, drops = [], []
    for _ in range(2 + setting.repeats(REPEATS)):
        start = time.perf_counter()
        item = create(elements)
        made = time.perf_counter()
        contender.drop(item)
        del item
        dropped = time.perf_counter()
        creates.append(made - start)
        drops.append(dropped - made)
    yield Sample("create", statistics.median(creates[2:]))
    yield Sample("drop", statistics.median(drops[2:]))


def fill_of_touched_memory(setting: Setting) -> Iterator[Sample]:
    touch_and_free(setting["size"] * 5 // 2)
    array = np.ones(setting["size"] // 8)
    array.fill(2.0)
    times = time_each(lambda: array.fill(1.0), setting.repeats(REPEATS))
    yield Sample("create", statistics.median(times))


FILL = "fill of touched memory"

CASE = Case(
    name="ones_large_warm",
    title="ones of {size}, again",
    measure=measure,
    contenders=CREATORS,
    floor=FILL,
    floors={FILL: fill_of_touched_memory},
    doc=__doc__,
    amounts={"size": Amount(1 << 30, 32 << 20)},
    goals=(Goal("create", FILL, at_most=1.1),),
)
