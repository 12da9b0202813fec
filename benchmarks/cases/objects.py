"""Whole objects made into a message and loaded from it, in one process: `dumps` and `loads`.

Timed: making the message, loading it, dropping the object and freeing what the message held; the median of
several, after one that is not timed. So the memory of each contender is as warm as it keeps it. What is
loaded is not read. The object that is sent lives throughout.

By hand: `pickle.dumps` of protocol 5, whose buffers are copied into one new segment of
`multiprocessing.shared_memory`, 64-byte aligned, and views of that segment for `pickle.loads`.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from ..contenders.base import Contender
from ..measuring import time_each
from ..model import Amount, Case, Goal, Sample, Setting
from ..objects import all_of

BY_HAND = "pickle 5 by hand"


def round_trip(contender: Contender, obj: Any) -> None:
    got, rest = contender.loads(contender.dumps(obj))
    del got
    contender.end_message(rest)


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    for name, obj in all_of(setting["size"]):
        times = time_each(lambda obj=obj: round_trip(contender, obj), setting.repeats(12, 3) + 1)
        yield Sample(name, statistics.median(times[1:]))


CASE = Case(
    name="objects",
    title="dumps and loads of whole objects of {size}, in one process",
    measure=measure,
    contenders=("sharedmem", "pickle", BY_HAND, "fastshare"),
    floor=BY_HAND,
    doc=__doc__,
    amounts={"size": Amount(100_000_000, 8_000_000)},
    goals=(
        Goal("DataFrame", "pickle", better_by=8),
        Goal("DataFrame", BY_HAND, better_by=4),
        Goal("text", "pickle", better_by=6),
        Goal("csr matrix", BY_HAND, better_by=4),
        Goal("dict of arrays", BY_HAND, better_by=4),
    ),
)
