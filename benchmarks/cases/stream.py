"""A stream of new frames: made, filled, sent by a Queue, read, dropped.

Timed: from the first of many frames to the consumer's report that it has
dropped the last. The producer makes each frame by ``empty``, writes every
element, puts it on a Queue of four places and forgets it; the consumer reads
a byte of each page and drops it. Rates are frames a second, after a warm-up.
Not timed: starting the processes.

The floor reuses one buffer: filled by the producer for each frame, known to
the consumer from the start, only a token travels. It neither allocates nor
maps nor faults, and does not wait for the consumer to have read.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..contenders.base import Contender
from ..groups import SENDERS
from ..measuring import read_pages, touch_and_free
from ..model import PEERS, Amount, Case, Goal, Sample, Setting

DEPTH = 4
REUSED = "the same with one buffer reused"


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    elements, frames = setting["size"] // 8, setting["frames"]
    touch_and_free(setting["size"] * 16)
    create = contender.creator("empty")
    fills_in_place = not isinstance(contender, Reused) and contender.name != "ray"
    if contender.name == "ray":  # its arrays must have their contents when stored
        create = contender.creator("full")

    def send(count: int) -> None:
        for number in range(count):
            item = create(elements)
            if fills_in_place:
                contender.array(item).fill(number)
            stream.put(item)
            del item
        stream.wait(count)

    with contender.stream(read_pages, DEPTH) as stream:
        send(max(8, frames // 10))
        start = time.perf_counter()
        send(frames)
        yield Sample("frames", frames / (time.perf_counter() - start), "1/s")


class Reused(Contender):
    """Fills the one buffer instead of making a frame."""

    def __init__(self, nbytes: int) -> None:
        self.buffer = np.frombuffer(mmap.mmap(-1, nbytes), dtype=float)

    def creator(self, function: str) -> Any:
        def create(elements: int) -> bool:
            self.buffer.fill(elements)
            return True  # the token that travels

        return create

    def array(self, item: Any) -> np.ndarray:
        return self.buffer


def reused(setting: Setting) -> Iterator[Sample]:
    yield from measure(Reused(setting["size"]), setting)


CASE = Case(
    name="stream",
    title="a stream of {frames} new frames of {size}: fill, Queue, read, drop",
    measure=measure,
    contenders=SENDERS,
    floor=REUSED,
    floors={REUSED: reused},
    doc=__doc__,
    amounts={
        "size": Amount(6 << 20, 6 << 20),
        "frames": Amount(1000, 20, "frames"),
    },
    goals=(
        Goal("frames", REUSED, at_least=0.8),
        Goal("frames", PEERS, better_by=20),
    ),
)
