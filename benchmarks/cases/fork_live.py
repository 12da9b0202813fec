"""`os.fork` with very many arrays alive.

Timed: from the call until both it has returned in the parent and the child
has run its first statement, fork handlers included; without arrays (median),
the first time with all of them alive, and the times after (median). "More"
is the difference to the same process without arrays. The child leaves at
once. Not timed: making the arrays, waiting for the child.
"""

from __future__ import annotations

import mmap
import os
import statistics
import time
from collections.abc import Iterator

import numpy as np

from ..contenders.base import Contender
from ..model import Amount, Case, Goal, Sample, Setting


def fork_seconds(clock: np.ndarray) -> float:
    """Forks once; the child leaves its time in the shared `clock`."""
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        clock[0] = time.perf_counter()
        os._exit(0)
    returned = time.perf_counter()
    os.waitpid(child, 0)
    return max(returned, float(clock[0])) - start


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    clock = np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), dtype=float)
    create = contender.creator("ones")
    item = create(100)
    fork_seconds(clock)
    repeats = setting.repeats(11, 3)
    without = statistics.median(fork_seconds(clock) for _ in range(repeats))
    items = [create(100) for _ in range(setting["arrays"])]
    first = fork_seconds(clock)
    then = statistics.median(fork_seconds(clock) for _ in range(repeats))
    del item, items
    yield Sample("without arrays", without)
    yield Sample("first", first)
    yield Sample("then", then)
    yield Sample("more at first", first - without)
    yield Sample("more then", then - without)


CASE = Case(
    name="fork_live",
    title="fork with {arrays} live arrays of 100 float64",
    measure=measure,
    contenders=("numpy", "sharedmem"),
    floor="numpy",
    doc=__doc__,
    amounts={"arrays": Amount(1_000_000, 10_000, "arrays")},
    goals=(
        Goal("more at first", at_most=0.100),
        Goal("more then", at_most=0.010),
    ),
)
