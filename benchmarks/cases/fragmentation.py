"""Resident memory over millions of operations on arrays of mixed sizes.

An operation makes an array of float64 if less than the target is alive, and
else drops one chosen at random. A byte of each page of a new array is
written. Sizes are drawn log-uniformly within a class, classes by weight; this
trace, ``mixed``, has 90 % small arrays (64 bytes to 4 KiB), 9.5 % medium ones
(to 256 KiB) and 0.5 % large ones (to 16 MiB) throughout.

Resident is the growth of the process's resident bytes, private and shared,
Python's own objects included; live is the sum of the arrays' bytes. The
largest ratio is taken over all samples after the target was first reached.
The time of an operation includes drawing from the trace and writing to pages.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from ..contenders.base import Contender
from ..measuring import resident_bytes, touch_and_free
from ..model import Amount, Case, Goal, Plot, Sample, Setting

#: Elements of the smallest and largest array of each class.
CLASSES = ((8, 512), (512, 32 << 10), (32 << 10, 2 << 20))
MIXED = (0.9, 0.095, 0.005)
TRACES = {
    "mixed": (MIXED,),
    "shifting": (
        (1.0, 0.0, 0.0),
        (0.5, 0.5, 0.0),
        (0.0, 0.9, 0.1),
        MIXED,
        (0.99, 0.0, 0.01),
        (0.0, 1.0, 0.0),
        (0.9, 0.0, 0.1),
        MIXED,
    ),
}
SEED = 20240229  # any number: the same trace in every run
SAMPLES = 200
CHUNK = 1 << 14


def sizes(chance: np.random.Generator, weights: tuple[float, ...]) -> list[int]:
    """Elements of the next `CHUNK` arrays of a trace."""
    low, high = np.log(np.array(CLASSES, dtype=float)).T
    drawn = chance.choice(len(CLASSES), CHUNK, p=weights)
    return np.exp(chance.uniform(low[drawn], high[drawn])).astype(int).tolist()


def victims(chance: np.random.Generator) -> list[float]:
    """Which of the live arrays to drop next, as fractions of their number."""
    return chance.random(CHUNK).tolist()


def run(contender: Contender, trace: str, operations: int, target: int) -> Iterator[tuple[int, int, int]]:
    """Replays a trace; yields operations done, live bytes, resident growth."""
    create = contender.creator("empty")
    chance = np.random.default_rng(SEED)
    phases = TRACES[trace]
    items: list[np.ndarray] = []
    to_make: list[int] = []
    to_drop: list[float] = []
    live = 0
    step = max(1, operations // SAMPLES)
    phase = -1
    before = resident_bytes()
    for number in range(1, operations + 1):
        if live < target:
            now = (number - 1) * len(phases) // operations
            if not to_make or now != phase:
                phase = now
                to_make = sizes(chance, phases[phase])
            elements = to_make.pop()
            array = create(elements)
            array[::512] = 1.0
            items.append(array)
            live += 8 * elements
        else:
            if not to_drop:
                to_drop = victims(chance)
            place = int(to_drop.pop() * len(items))
            live -= items[place].nbytes
            items[place] = items[-1]
            items.pop()
        if number % step == 0:
            yield number, live, resident_bytes() - before
    del array
    items.clear()
    yield operations + step, 0, resident_bytes() - before


def replay(contender: Contender, setting: Setting, trace: str) -> Iterator[Sample]:
    """Samples of one trace, which needs a process of its own."""
    operations, target = setting["operations"], setting["live"]
    touch_and_free(target * 2)
    start = time.perf_counter()
    ratios = []
    for done, live, resident in run(contender, trace, operations, target):
        for what, value in (("resident", resident), ("live", live)):
            yield Sample(what, value, "bytes", x=done, series=what, plotted_only=True)
        if live >= 0.9 * target:
            ratios.append(resident / live)
    elapsed = time.perf_counter() - start
    yield Sample("largest resident / live", max(ratios), "ratio")
    yield Sample("last resident / live", ratios[-1], "ratio")
    yield Sample("after dropping all", resident, "bytes")
    yield Sample("an operation", elapsed / operations)


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    yield from replay(contender, setting, "mixed")


AMOUNTS = {
    "operations": Amount(10_000_000, 60_000, "operations"),
    "live": Amount(9 << 27, 32 << 20),
}
PLOT = Plot("operations", "bytes", x_log=False, y_log=False)

CASE = Case(
    name="fragmentation",
    title="{operations} operations on mixed sizes with {live} alive",
    measure=measure,
    contenders=("numpy", "sharedmem"),
    floor="numpy",
    doc=__doc__,
    amounts=AMOUNTS,
    goals=(Goal("largest resident / live", at_most=1.3),),
    plot=PLOT,
)
