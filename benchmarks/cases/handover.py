"""An array handed to another process, which reads one element and answers.

Timed: one round trip: the message that names the array sent through a Pipe,
received, the array found, its first element read and sent back, the array
let go by the receiver. The median of many, after a warm-up; the sender makes
the array once and keeps it. ray's is a call of an actor.
Not timed: making the array, starting the process.

The floor is a tiny message there and back by the same Pipe: nothing is named
and no array is found.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..contenders.base import Contender
from ..contenders.plain import Plain
from ..groups import SENDERS
from ..measuring import time_each
from ..model import Amount, Case, Goal, Sample, Setting

TINY = "tiny message there and back"


def first_element(array: np.ndarray) -> float:
    return float(array[0])


def round_trip(contender: Contender, nbytes: int, calls: int) -> float:
    """Median seconds of handing over an array of `nbytes` and its answer."""
    with contender.consumer(first_element) as consumer:
        item = contender.creator("ones")(nbytes // 8)
        times = time_each(lambda: consumer.call(item), calls + calls // 4 + 2)
        contender.drop(item)
    return statistics.median(times[-calls:])


class Token(Plain):
    """Sends a small integer; the receiver looks at nothing."""

    def pack(self, item: Any) -> int:
        return 0

    def unpack(self, message: int) -> tuple[float]:
        return (1.0,)


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    yield Sample("round trip", round_trip(contender, setting["size"], setting["calls"]))


def tiny(setting: Setting) -> Iterator[Sample]:
    yield from measure(Token(), setting)


CASE = Case(
    name="handover",
    title="{size} handed to another process by Pipe, touched, answered",
    measure=measure,
    contenders=SENDERS,
    floor=TINY,
    floors={TINY: tiny},
    doc=__doc__,
    amounts={"size": Amount(6 << 20, 6 << 20), "calls": Amount(2000, 40, "calls")},
    goals=(Goal("round trip", TINY, at_most=1.15),),
)
