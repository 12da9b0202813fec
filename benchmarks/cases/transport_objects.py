"""Whole objects sent to another process and what they cost: frames, small messages, objects without arrays.

Timed: for frames one round trip through a Pipe, of which only a token comes back: pickle,
``sharedmem.transport()`` and ``transport(copy=False)`` take turns within one process, and the median of each
counts. For what transport does not change, pickling a message and loading it, by ``ForkingPickler`` in an
interpreter with this library (transport on) and in one that has not imported it, in turns of processes; the
least of many counts.

Points that end in "times" say how often pickle's time contains that of transport.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..contenders.base import Contender
from ..model import Amount, Case, Goal, Sample, Setting
from .transport_by_size import take_turns


def token(thing: Any) -> int:
    return len(thing)


def frames(nbytes: int) -> dict[str, Callable[[], Any]]:
    """What makes the frames, by name; without pandas there is none."""
    try:
        import pandas
    except ImportError:
        return {}
    rows = nbytes // 80
    text = [f"row {i}" for i in range(nbytes // 100)]
    columns = {str(i): np.arange(rows, dtype="f8") for i in range(10)}
    return {
        "DataFrame of 10 columns": lambda: pandas.DataFrame(columns),
        "DataFrame of strings": lambda: pandas.DataFrame({"text": text}),
    }


#: Run in interpreters of their own: prints the least seconds of pickling and loading each object.
SMALL = """
import dataclasses, datetime, json, pickle, sys, timeit
import numpy as np
if sys.argv[1] == "with":
    import sharedmem
    sharedmem.transport()
from multiprocessing.reduction import ForkingPickler

@dataclasses.dataclass
class Point:
    x: int
    y: float

objects = {
    "array of 60 KiB": np.ones(60 << 7),
    "100 arrays of 80 bytes": [np.ones(10) for _ in range(100)],
    "100 dataclasses": [Point(i, i / 2) for i in range(100)],
    "100 dates": [datetime.datetime(2020, 1, 1) + datetime.timedelta(i) for i in range(100)],
    "1000 strings": [str(i) for i in range(1000)],
    "a small dict": {"a": 1},
}
found = {}
for name, thing in objects.items():
    call = lambda: pickle.loads(ForkingPickler.dumps(thing))
    number = max(1, int(float(sys.argv[2]) / 20 / max(timeit.timeit(call, number=3) / 3, 1e-7)))
    found[name] = min(timeit.repeat(call, number=number, repeat=20)) / number
print(json.dumps(found))
"""


def small(turns: int, seconds: float) -> dict[str, dict[str, float]]:
    """The least seconds of each object in interpreters with and without the library."""
    least: dict[str, dict[str, float]] = {"with": {}, "without": {}}
    for _ in range(turns):
        for which, best in least.items():
            command = [sys.executable, "-c", SMALL, which, str(seconds)]
            printed = subprocess.run(command, check=True, capture_output=True).stdout
            for name, value in json.loads(printed).items():
                best[name] = min(value, best.get(name, value))
    return least


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    for name, make in frames(setting["size"]).items():
        found = take_turns(contender.module, make, setting.repeats(7), token)  # type: ignore[attr-defined]
        for way, seconds in found.items():
            yield Sample(f"{name}, {way}", seconds)
        for way in ("transport()", "transport(copy=False)"):
            yield Sample(f"{name}, {way}, times", found["pickle"] / found[way], unit="times")
    least = small(setting.repeats(6, 1), setting.seconds)
    for name, value in least["with"].items():
        yield Sample(f"{name}, transport()", value)
        yield Sample(f"{name}, pickle", least["without"][name])
        yield Sample(f"{name}, transport() / pickle", value / least["without"][name], unit="ratio")
    smallest = "a small dict"
    yield Sample(f"{smallest}, more by transport()", least["with"][smallest] - least["without"][smallest])


CASE = Case(
    name="transport_objects",
    title="objects sent to another process: frames of {size}, small messages, objects without arrays",
    measure=measure,
    contenders=("sharedmem",),
    floor="sharedmem",
    doc=__doc__,
    amounts={"size": Amount(100_000_000, 2_000_000)},
    goals=(
        Goal("DataFrame of 10 columns, transport(), times", at_least=8),
        Goal("DataFrame of strings, transport(), times", at_least=6),
        Goal("array of 60 KiB, transport() / pickle", at_most=1.05),
        Goal("100 dataclasses, transport() / pickle", at_most=1.02),
        Goal("100 dates, transport() / pickle", at_most=1.02),
        Goal("1000 strings, transport() / pickle", at_most=1.02),
        Goal("a small dict, more by transport()", at_most=0.3e-6),
    ),
)
