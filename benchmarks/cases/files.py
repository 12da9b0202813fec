"""A ``.npy`` file opened in place, and an array in one handed to another process.

Timed:

* ``open and close 4 kB``: ``load(path, mmap_mode="r")``, by `timeit`; the
  floor is ``numpy.load`` with the same arguments. What is opened is dropped
  at once.
* ``round trip``: an array of 16 MiB in a file sent through a Pipe to a process
  that has not opened the file otherwise, its first element read and sent
  back, the array let go by the receiver. The median of many; the sender keeps
  its own. The floor is an array of that size in memory.
* ``length of the pickle`` of an array in a file with a short path.

Not timed: making the file, starting the process.
"""

from __future__ import annotations

import os
import pickle
import statistics
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..contenders.base import Contender
from ..contenders.own import Own
from ..measuring import time_each, time_statement
from ..model import Amount, Case, Goal, Sample, Setting
from .handover import first_element

FLOOR = "numpy.load; array in memory"


def _opening(load: Callable[..., Any], folder: str, setting: Setting) -> Sample:
    path = os.path.join(folder, "small.npy")
    np.save(path, np.ones(512))
    names = {"load": load, "path": path}
    return Sample("open and close 4 kB", time_statement('load(path, mmap_mode="r")', names, setting.seconds))


def _round_trip(contender: Contender, item: Any, calls: int) -> Sample:
    with contender.consumer(first_element) as consumer:
        times = time_each(lambda: consumer.call(item), calls + calls // 4 + 2)
    return Sample("round trip", statistics.median(times[-calls:]))


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    import sharedmem

    with tempfile.TemporaryDirectory() as folder:
        yield _opening(sharedmem.load, folder, setting)
        item = sharedmem.open_memmap(os.path.join(folder, "a.npy"), "w+", "f8", setting["size"] // 8)
        item[:] = 1
        yield Sample("length of the pickle", len(pickle.dumps(item)), "bytes")
        yield _round_trip(contender, item, setting["calls"])


def in_memory(setting: Setting) -> Iterator[Sample]:
    own = Own()
    own.open(setting)
    with tempfile.TemporaryDirectory() as folder:
        yield _opening(np.load, folder, setting)
    yield _round_trip(own, own.creator("ones")(setting["size"] // 8), setting["calls"])


CASE = Case(
    name="files",
    title="a .npy file opened in place; an array of {size} in a file handed to another process",
    measure=measure,
    contenders=("sharedmem",),
    floor=FLOOR,
    floors={FLOOR: in_memory},
    doc=__doc__,
    amounts={"size": Amount(16 << 20, 16 << 20), "calls": Amount(2000, 40, "calls")},
    goals=(
        Goal("open and close 4 kB", FLOOR, at_most=1.5),
        Goal("round trip", FLOOR, at_most=2),
        Goal("length of the pickle", at_most=400),
    ),
)
