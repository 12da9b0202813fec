"""What NumPy's calls take when its arrays lie in shared memory.

Timed, in a loop of `timeit` after a warm-up: `np.empty`, and the sum of two
arrays of several sizes, each result dropped at once. "numpy" is NumPy with its
own allocator, "sharedmem" the same calls within ``sharedmem.allocator()``; the
arrays that are added are made there, too.
Not timed: imports, entering the block.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from ..contenders.plain import Plain
from ..measuring import time_statement
from ..model import Case, Goal, Sample, Setting

SIZES = (3, 10_000, 1_000_000)
SMALL = "np.empty(100)"


def adding(size: int) -> str:
    return f"a + b of {size:,}"


def measure(contender: Plain, setting: Setting) -> Iterator[Sample]:
    own = contender.name == "sharedmem"
    with contender.module.allocator() if own else contextlib.nullcontext():
        if contender.module is not np and not contender.module.is_shared(np.ones(3)):
            raise RuntimeError("NumPy's arrays are not in shared memory")
        yield Sample(SMALL, time_statement("empty(100)", {"empty": np.empty}, setting.seconds))
        for size in SIZES:
            names = {"a": np.ones(size), "b": np.ones(size)}
            yield Sample(adding(size), time_statement("a + b", names, setting.seconds))


CASE = Case(
    name="numpy_allocator",
    title="NumPy's own arrays in shared memory",
    measure=measure,
    contenders=("numpy", "sharedmem"),
    floor="numpy",
    doc=__doc__,
    goals=(Goal(SMALL, "numpy", at_most=1.35), Goal(adding(SIZES[-1]), "numpy", at_most=1.05)),
)
