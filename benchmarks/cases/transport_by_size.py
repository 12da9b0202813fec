"""An ordinary array sent to another process, which sends it back, with and without transport.

Timed: one round trip through a Pipe: the array sent, received by the other process, sent back and received;
from 8 KiB up to the largest. The median of several; each sends a new array, which was made before. pickle,
``sharedmem.transport()`` and ``transport(copy=False)`` take turns within one process, so that all meet the
same moments of the machine. joblib is one task of loky, ray is a ``put``, a call of an actor and a ``get``.
"pickle 5 by hand" and fastshare make a message of the array at both ends, as in the case `objects`, and send
it through a Pipe. Not timed: making the array, starting the processes, dropping what came back.

Points that end in "times" say how often pickle's median contains that of transport. "arrives in shared
memory" are those ways that leave the array there, without a private copy; ray's is read-only.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..contenders.base import Contender
from ..contenders.plain import Plain
from ..model import Amount, Case, Goal, Plot, Sample, Setting, human_bytes
from ..transport import MessageEcho, PipeConsumer

SIZES = (8 << 10, 32 << 10, 60 << 10, 256 << 10, 1 << 20, 6 << 20, 32 << 20, 256 << 20)

#: What takes turns: the arguments of `sharedmem.transport`, None where it is off.
WAYS: dict[str, dict[str, Any] | None] = {
    "pickle": None,
    "transport()": {},
    "transport(copy=False)": {"copy": False},
}

#: Contenders whose messages are made at both ends, by functions of theirs.
MESSAGES = ("pickle 5 by hand", "fastshare")

#: Points of the ways whose arrays need no copy of the receiver's own.
IN_SHARED_MEMORY = "{}, arrives in shared memory"


def echo(array: np.ndarray) -> np.ndarray:
    return array


def switched(module: Any, keywords: dict[str, Any] | None) -> Any:
    return contextlib.nullcontext() if keywords is None else module.transport(**keywords)


def seconds_of(call: Callable[[Any], Any], item: Any) -> float:
    start = time.perf_counter()
    back = call(item)
    taken = time.perf_counter() - start
    del back
    return taken


def take_turns(
    module: Any, make: Callable[[], Any], calls: int, function: Callable[[Any], Any] = echo
) -> dict[str, float]:
    """Median seconds of a round trip of what `make` makes, by way."""
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    with contextlib.ExitStack() as stack:
        consumers = {}
        for name, keywords in WAYS.items():
            with switched(module, keywords):
                consumers[name] = stack.enter_context(PipeConsumer(Plain(), function, None))
        for turn in range(calls + 2):
            for name, keywords in WAYS.items():
                item = make()
                with switched(module, keywords):
                    taken = seconds_of(consumers[name].call, item)
                if turn >= 2:
                    times[name].append(taken)
                del item
    return {name: statistics.median(each) for name, each in times.items()}


def calls_of(size: int, setting: Setting) -> int:
    return max(3, min(setting["calls"], (1 << 29) // size))


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    for size in SIZES:
        if size > setting["largest"]:
            break
        calls = calls_of(size, setting)
        text = human_bytes(size)
        if contender.name == "sharedmem":
            found = take_turns(contender.module, lambda size=size: np.ones(size // 8), calls)  # type: ignore[attr-defined]
            for name, seconds in found.items():
                yield Sample(f"{text}, {name}", seconds, x=size, series=name)
            for name in ("transport()", "transport(copy=False)"):
                yield Sample(f"{text}, {name}, times", found["pickle"] / found[name], unit="times")
            yield Sample(IN_SHARED_MEMORY.format(text), found["transport(copy=False)"])
        else:
            point = text if contender.name == "joblib" else IN_SHARED_MEMORY.format(text)
            yield Sample(point, others(contender, size, calls), x=size)


def others(contender: Any, size: int, calls: int) -> float:
    """Median seconds of a round trip by another library."""
    with contextlib.ExitStack() as stack:
        if contender.name in MESSAGES:
            call = stack.enter_context(MessageEcho(contender)).call
        elif contender.name == "ray":
            library = contender.library
            actor = stack.enter_context(contender.consumer(echo))

            def call(item: Any) -> Any:
                return actor.call(library.put(item))

        else:
            library = contender.library
            parallel = stack.enter_context(library.Parallel(n_jobs=2))

            def call(item: Any) -> Any:
                return parallel([library.delayed(echo)(item)])

        times = [seconds_of(call, np.ones(size // 8)) for _ in range(calls + 2)]
    return statistics.median(times[2:])


CASE = Case(
    name="transport_by_size",
    title="an ordinary array of 8 KiB to {largest} to another process and back",
    measure=measure,
    contenders=("sharedmem", "joblib", "ray", *MESSAGES),
    floor="sharedmem",
    doc=__doc__,
    amounts={"largest": Amount(256 << 20, 1 << 20), "calls": Amount(100, 10, "calls")},
    goals=(
        Goal("60 KiB, transport(), times", at_least=0.95),
        Goal("256 KiB, transport(), times", at_least=1.5),
        Goal("6 MiB, transport(), times", at_least=15),
        Goal("256 MiB, transport(), times", at_least=10),
        Goal("256 MiB, transport(copy=False), times", at_least=40),
        Goal("256 MiB, arrives in shared memory", "ray", at_most=1.0),
    ),
    plot=Plot("bytes of the array", "seconds there and back"),
    timeout=1200.0,
)
