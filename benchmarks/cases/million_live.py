"""Very many small arrays alive at once: time, memory, descriptors and mappings.

Timed: making each array by ``ones`` and appending it to a list, and dropping
the list, with the garbage collector as Python has it. Memory is the growth of
the process's resident bytes, private and shared, Python's objects included;
descriptors and mappings are their growth. A library that cannot reach the
number stops there and the reason is noted; its figures are of those it made.

ray is left out: its arrays lie in another process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from ..contenders.base import Contender
from ..groups import CREATORS
from ..measuring import descriptors, mappings, resident_bytes, touch_and_free
from ..model import Amount, Case, Goal, Sample, Setting

DEADLINE = 120.0
BATCH = 100


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    create, wanted = contender.creator("ones"), setting["arrays"]
    contender.drop(create(100))
    touch_and_free(wanted * 4096 // 2)
    # Given back before counting, which needs some where all have been used up.
    spare = [os.open("/dev/null", os.O_RDONLY) for _ in range(4)]
    memory, files, maps = resident_bytes(), descriptors(), mappings()
    items: list[object] = []
    note = ""
    start = time.perf_counter()
    try:
        while len(items) < wanted:
            for _ in range(BATCH):
                items.append(create(100))
            if time.perf_counter() - start > DEADLINE:
                note = f"stopped after {DEADLINE:g} s"
                break
    except Exception as error:  # each library has its own way to say "no more"
        note = f"{type(error).__name__}: {error}".splitlines()[0][:160]
    made = time.perf_counter() - start
    for descriptor in spare:
        os.close(descriptor)
    count = len(items)
    if note:
        contender.drop(items.pop())
    yield Sample("arrays alive", count, "reached", note=note)
    yield Sample("make, each", made / count)
    yield Sample("memory, each", (resident_bytes() - memory) / count, "bytes")
    yield Sample("descriptors", descriptors() - files + len(spare), "count")
    yield Sample("mappings", mappings() - maps, "count")
    start = time.perf_counter()
    if type(contender).drop is not Contender.drop:
        for item in items:
            contender.drop(item)
        del item
    items.clear()
    yield Sample("drop, each", (time.perf_counter() - start) / count)


CASE = Case(
    name="million_live",
    title="{arrays} live arrays of 100 float64",
    measure=measure,
    contenders=tuple(name for name in CREATORS if name != "ray"),
    floor="numpy",
    doc=__doc__,
    amounts={"arrays": Amount(1_000_000, 2_000, "arrays")},
    goals=(
        Goal("make, each", "numpy", at_most=1.1),
        Goal("drop, each", "numpy", at_most=1.1),
        Goal("memory, each", at_most=1100),
        Goal("descriptors", at_most=0),
        Goal("mappings", at_most=100),
    ),
)
