"""What a program pays before its first array: the import, and a worker's first handle.

Each sample is the median over fresh interpreters that have imported NumPy and
``multiprocessing.connection`` already, as a program with workers has.

* ``import``: ``import sharedmem`` in a program that starts a tree of its own;
  the arena is made then.
* ``import in a worker`` and ``first handle``: in a child of this process, as a
  worker is that was started by ``spawn``. The import makes no arena there; the
  first ``loads`` joins its parent's.
"""

from __future__ import annotations

import os
import pickle
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from ..contenders.base import Contender
from ..model import Case, Goal, Sample, Setting

PROGRAM = """
import pickle, sys, time
import numpy, multiprocessing.connection
handle = bytes.fromhex(sys.argv[1])
start = time.perf_counter()
import sharedmem
imported = time.perf_counter()
if handle:
    array = pickle.loads(handle)
print(imported - start, time.perf_counter() - imported)
"""


def _run(handle: bytes, **environment: str) -> tuple[float, float]:
    """Seconds of the import, and of loading the handle, in a fresh interpreter."""
    command = [sys.executable, "-c", PROGRAM, handle.hex()]
    done = subprocess.run(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True
    )
    imported, loaded = map(float, done.stdout.split())
    return imported, loaded


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    item: Any = contender.creator("ones")(1000)
    handle = pickle.dumps(item)
    runs = range(setting.repeats(full=15))
    alone = [_run(b"", SHAREDMEM_ARENA="new")[0] for _ in runs]
    joined = [_run(handle) for _ in runs]
    contender.drop(item)
    yield Sample("import", statistics.median(alone))
    yield Sample("import in a worker", statistics.median(first for first, _ in joined))
    yield Sample("first handle", statistics.median(second for _, second in joined))


CASE = Case(
    name="start_up",
    title="import after NumPy, and a worker's first handle",
    measure=measure,
    contenders=("sharedmem",),
    floor="sharedmem",
    doc=__doc__,
    goals=(Goal("import", at_most=0.004), Goal("first handle", at_most=0.002)),
)
