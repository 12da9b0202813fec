"""Large arrays made by as many threads as the library chooses, and by one.

Timed: each a call of `ones` or `copy` in a process that has made one small
array before, with memory that no array has used. "pages at hand": as much
private memory, and a quarter more, is touched and given back just before, so
that the kernel has pages. "after a rest": the same is done, then nothing for
three seconds; a virtual machine may have given free pages back to its host by
then, and has to get them again. "into pages that are there": a copy into memory
that an array of this size has used before.
Not timed: imports, making the array that is copied.

The floor "one thread" is the same with ``SHAREDMEM_COPY_THREADS=1``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..contenders.plain import Plain
from ..measuring import touch_and_free
from ..model import Amount, Case, Goal, Sample, Setting

AT_HAND, RESTED = "ones, pages at hand", "ones, after a rest"
FRESH_COPY, WARM_COPY = "copy, pages at hand", "copy into pages that are there"
ONE = "one thread"


def _seconds(make: Callable[[], Any]) -> float:
    start = time.perf_counter()
    made = make()
    taken = time.perf_counter() - start
    del made
    return taken


def _measure(module: Any, setting: Setting) -> Iterator[Sample]:
    size = setting["size"]
    module.ones(100)
    source = np.ones(size // 8)
    for point, rest, make in (
        (AT_HAND, 0.0, lambda: module.ones(size // 8)),
        (RESTED, 0.1 if setting.quick else 3.0, lambda: module.ones(size // 8)),
        (FRESH_COPY, 0.0, lambda: module.copy(source)),
    ):
        module.cleanup()
        touch_and_free(size * 5 // 4)
        time.sleep(rest)
        yield Sample(point, _seconds(make))
    module.memory_limit(2 * size)
    module.copy(source)
    yield Sample(WARM_COPY, min(_seconds(lambda: module.copy(source)) for _ in range(3)))


def measure(contender: Plain, setting: Setting) -> Iterator[Sample]:
    return _measure(contender.module, setting)


def by_one_thread(setting: Setting) -> Iterator[Sample]:
    os.environ["SHAREDMEM_COPY_THREADS"] = "1"
    import sharedmem

    return _measure(sharedmem, setting)


CASE = Case(
    name="copy_threads",
    title="ones and copy of {size} by several threads",
    measure=measure,
    contenders=("sharedmem",),
    floor=ONE,
    floors={ONE: by_one_thread},
    doc=__doc__,
    amounts={"size": Amount(1 << 30, 96 << 20)},
    goals=(Goal(RESTED, ONE, at_most=0.75), Goal(WARM_COPY, ONE, at_most=1.05)),
)
