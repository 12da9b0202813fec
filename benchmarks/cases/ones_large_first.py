"""The first large array of ``ones`` that a process makes.

Timed: the one call, in a process that has made one small array before; the
drop is a point of its own. Not timed: imports and first use. Just before the
clock starts, two and a half times as much private memory is touched and
given back, so that the kernel has pages at hand for every contender alike.

The floor "fill of fresh huge pages" writes 1.0 to as much new private memory
for which transparent huge pages were asked.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator

import numpy as np

from ..contenders.base import Contender
from ..groups import CREATORS
from ..measuring import touch_and_free
from ..model import PEERS, Amount, Case, Goal, Sample, Setting


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    create = contender.creator("ones")
    contender.drop(create(100))
    touch_and_free(setting["size"] * 5 // 2)
    start = time.perf_counter()
    item = create(setting["size"] // 8)
    made = time.perf_counter()
    contender.drop(item)
    del item
    dropped = time.perf_counter()
    yield Sample("create", made - start)
    yield Sample("drop", dropped - made)


def fresh_huge_pages(setting: Setting) -> Iterator[Sample]:
    touch_and_free(setting["size"] * 5 // 2)
    start = time.perf_counter()
    region = mmap.mmap(-1, setting["size"], flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    region.madvise(mmap.MADV_HUGEPAGE)
    array = np.frombuffer(region, dtype=float)
    array.fill(1.0)
    made = time.perf_counter()
    del array
    region.close()
    dropped = time.perf_counter()
    yield Sample("create", made - start)
    yield Sample("drop", dropped - made)


CASE = Case(
    name="ones_large_first",
    title="ones of {size}, the first time",
    measure=measure,
    contenders=CREATORS,
    floor="numpy",
    floors={"fill of fresh huge pages": fresh_huge_pages},
    doc=__doc__,
    amounts={"size": Amount(1 << 30, 32 << 20)},
    goals=(
        Goal("create", "numpy", at_most=1.3),
        Goal("create", PEERS, better_by=3),
    ),
)
