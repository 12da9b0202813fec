"""The round trip of `handover`, against the size of the array.

Timed as there: the median round trip of a message that names the array. A
handle's cost does not depend on the size; that of a copy does.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..contenders.base import Contender
from ..groups import SENDERS
from ..model import Amount, Case, Plot, Sample, Setting, human_bytes
from .handover import round_trip

SIZES = tuple(4096 << shift for shift in range(0, 19, 3))


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    for size in SIZES:
        if size > setting["largest"]:
            break
        calls = max(5, min(setting["calls"], (1 << 31) // size))
        seconds = round_trip(contender, size, calls)
        yield Sample(human_bytes(size), seconds, x=size)


CASE = Case(
    name="handover_by_size",
    title="4 KiB to {largest} handed to another process, touched, answered",
    measure=measure,
    contenders=SENDERS,
    floor="sharedmem",
    doc=__doc__,
    amounts={
        "largest": Amount(1 << 30, 2 << 20),
        "calls": Amount(400, 20, "calls"),
    },
    plot=Plot("bytes of the array", "seconds of a round trip"),
)
