"""The most memory that a Dask cluster of two workers takes for one array.

What counts is the greatest sum of the proportional set sizes of both workers and of the client, whose process
has the scheduler, too, less that sum before the array is made. In it memory that several of them have counts
once. It is read every few milliseconds by another process, so that a peak between two looks may be missed.
Each way is measured in a cluster of its own, which has carried no array before.

Points that end in "arrays" say how many times the array's size that is. `benchmarks.dask_clusters` says what
each way is.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from typing import Any

from ..contenders.base import Contender
from ..dask_clusters import PAGE, TRANSFERS, WAYS, Cluster
from ..model import Amount, Case, Goal, Sample, Setting
from ..peak_memory import memory, samples

#: A program that has used no shared memory: nothing of it is mapped when it starts.
SPAWN = multiprocessing.get_context("spawn")


def _do(conn: Any, what: str, way: str, nbytes: int) -> None:
    protocol, make = WAYS[way]
    cluster = Cluster(protocol)
    try:
        conn.send([os.getpid(), *cluster.client.run(os.getpid).values()])
        conn.recv()
        try:
            found: Any = TRANSFERS[what](cluster, make, nbytes)[1]
        except Exception as error:
            found = repr(error)
        conn.send(found)
        conn.recv()
    finally:
        cluster.close()


def peak(what: str, way: str, nbytes: int) -> int:
    """Bytes that a cluster takes at most."""
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=_do, args=(theirs, what, way, nbytes))
    process.start()
    theirs.close()
    pids = ours.recv()
    before = most = memory(pids)
    ours.send("go")
    while not ours.poll(0.002):
        most = max(most, memory(pids))
    found = ours.recv()
    ours.send("end")
    process.join()
    ours.close()
    if found != -(-nbytes // PAGE):
        raise RuntimeError(f"{what}, {way}: the array did not arrive as it was sent: {found}")
    return most - before


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    yield from samples(peak, ("worker to worker", "broadcast"), list(WAYS), setting["size"])


CASE = Case(
    name="dask_memory",
    title="peak memory of Dask's workers and client for one array of {size}",
    measure=measure,
    contenders=("sharedmem",),
    floor="sharedmem",
    doc=__doc__,
    amounts={"size": Amount(256 << 20, 16 << 20)},
    goals=(
        Goal("worker to worker, NumPy's arrays / tcp", at_most=0.7),
        Goal("broadcast, our arrays, arrays", at_most=1.05),
    ),
    timeout=600.0,
    needs=("distributed",),
)
