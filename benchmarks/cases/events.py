"""Two processes that wake each other in turn: a pair of events, there and back.

Timed: one round trip: this process sets one event and waits for the other;
its partner waits for the first, clears it and sets the second; this process
clears that. The median over many, after a warm-up.

``multiprocessing.Event`` has semaphores and a lock inside. The floor is a
word of shared memory that both change, wait for and wake each other by:
``sharedmem.atomics``, without anything around it.
"""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Callable, Iterator
from typing import Any

from ..contenders.base import Contender
from ..measuring import time_each
from ..model import Amount, Case, Goal, Sample, Setting

THEIRS = "multiprocessing.Event"
WORD = "a word of shared memory"


def _answer(ping: Any, pong: Any, rounds: int) -> None:
    for _ in range(rounds):
        ping.wait()
        ping.clear()
        pong.set()


def _answer_word(word: Any, rounds: int) -> None:
    from sharedmem import atomics

    for _ in range(rounds):
        atomics.wait(word, 0, 0)
        atomics.store(word, 0, 0)
        atomics.notify(word, 0)


def _round_trip(
    partner: Callable[..., None], args: tuple[Any, ...], call: Callable[[], None], n: int
) -> Sample:
    warm = n // 4 + 2
    process = multiprocessing.Process(target=partner, args=(*args, n + warm))
    process.start()
    times = time_each(call, n + warm)
    process.join()
    return Sample("round trip", statistics.median(times[warm:]))


def _events(make: Callable[[], Any], setting: Setting) -> Iterator[Sample]:
    ping, pong = make(), make()

    def call() -> None:
        ping.set()
        pong.wait()
        pong.clear()

    yield _round_trip(_answer, (ping, pong), call, setting["calls"])


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    import sharedmem

    yield from _events(sharedmem.Event, setting)


def theirs(setting: Setting) -> Iterator[Sample]:
    yield from _events(multiprocessing.Event, setting)


def word(setting: Setting) -> Iterator[Sample]:
    import sharedmem
    from sharedmem import atomics

    shared = sharedmem.zeros(1, "i4")

    def call() -> None:
        atomics.store(shared, 0, 1)
        atomics.notify(shared, 0)
        atomics.wait(shared, 0, 1)

    yield _round_trip(_answer_word, (shared,), call, setting["calls"])


CASE = Case(
    name="events",
    title="two processes wake each other by events",
    measure=measure,
    contenders=("sharedmem",),
    floor=THEIRS,
    floors={THEIRS: theirs, WORD: word},
    doc=__doc__,
    amounts={"calls": Amount(10_000, 100, "calls")},
    goals=(Goal("round trip", THEIRS, at_most=0.5),),
)
