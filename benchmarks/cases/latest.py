"""The newest frame handed over: one put and one get, in one process.

Timed: ``Latest.put`` of a frame and ``Latest.get``, whose array is dropped at
once; frames are two that take turns, made and filled before. The median of
many. The floor is one copy of the frame into memory that is there, which is
what a buffer that readers copy from costs each of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import numpy as np

from ..contenders.base import Contender
from ..measuring import time_each
from ..model import Amount, Case, Goal, Sample, Setting

COPY = "one copy of the frame"


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    import sharedmem

    latest = sharedmem.Latest()
    create, elements = contender.creator("ones"), setting["size"] // 8
    frames = create(elements), create(elements)

    def call() -> None:
        latest.put(frames[0])
        latest.get()
        latest.put(frames[1])
        latest.get()

    times = time_each(call, setting["calls"])
    yield Sample("put and get", statistics.median(times) / 2)


def copy(setting: Setting) -> Iterator[Sample]:
    frame, to = np.ones(setting["size"] // 8), np.ones(setting["size"] // 8)
    yield Sample("put and get", statistics.median(time_each(lambda: np.copyto(to, frame), setting["calls"])))


CASE = Case(
    name="latest",
    title="a frame of {size} put into a Latest, and got out of it",
    measure=measure,
    contenders=("sharedmem",),
    floor=COPY,
    floors={COPY: copy},
    doc=__doc__,
    amounts={"size": Amount(6 << 20, 6 << 20), "calls": Amount(2000, 20, "calls")},
    goals=(Goal("put and get", COPY, at_most=0.1),),
)
