"""The most memory that a program and its two workers of joblib take for one call.

What counts is the greatest sum of their proportional set sizes, less that sum before the call. In it memory
that several of them have counts once. Another process reads it every few milliseconds, and stops them
meanwhile: what counts for one changes with what the others map. A peak between two looks may be missed. Each
way is measured in a program of its own, whose workers have carried no array before.
`benchmarks.joblib_pools` says what each way is, and what is done.

Points that end in "arrays" say how many times the array's size that is. "given" is one array, to four tasks;
"results" are two arrays, which the workers have, too.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

from ..contenders.base import Contender
from ..joblib_pools import WAYS, Pool
from ..model import Amount, Case, Goal, Sample, Setting
from ..peak_memory import memory, samples


def memory_at_once(pids: list[int]) -> int:
    """Bytes of some processes together, at one moment."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        return memory(pids)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def peak(what: str, way: str, nbytes: int) -> int:
    """Bytes that a program and its workers take at most."""
    pool = Pool(way)
    try:
        before = most = memory_at_once(pool.pids)
        pool.ask(what, nbytes)
        while not pool.ready(0.005):
            most = max(most, memory_at_once(pool.pids))
        pool.answer()
    finally:
        pool.close()
    return most - before


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    yield from samples(peak, ("given", "results"), list(WAYS), setting["size"])


CASE = Case(
    name="joblib_memory",
    title="peak memory of a program and its workers of joblib for arrays of {size}",
    measure=measure,
    contenders=("sharedmem",),
    floor="sharedmem",
    doc=__doc__,
    amounts={"size": Amount(256 << 20, 16 << 20)},
    goals=(
        Goal("given, our arrays, arrays", at_most=1.05),
        Goal("results, our arrays, arrays", at_most=2.1),
        Goal("given, NumPy's arrays / loky", at_most=1.05),
        Goal("results, NumPy's arrays / loky", at_most=1.05),
    ),
    timeout=600.0,
    needs=("joblib",),
)
