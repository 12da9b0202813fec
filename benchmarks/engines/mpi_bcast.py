"""`sharedmem.mpi.bcast` and MPI's own ways to give an array to the ranks of a node.

    mpirun -n 2 python -m benchmarks.engines.mpi_bcast [--rounds 9] [--sizes 6291456,268435456] [--json]

Timed at rank 0, from one barrier to the next, in turns; at the end each rank has read one byte of each page:

Bcast       `comm.Bcast` of a private array into private ones that are there already
window      `MPI.Win.Allocate_shared`, which the root fills from its array
copy        `sharedmem.mpi.bcast` of a private array: one copy
handle      `sharedmem.mpi.bcast` of an array in shared memory
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np
from mpi4py import MPI

import sharedmem.mpi

SIZES = (6 << 20, 256 << 20)
PAGE = 4096


def ways_of(nbytes: int, node: Any) -> dict[str, Any]:
    """Functions that give an array of ones to all ranks; "window" returns what must be freed, too."""
    world = MPI.COMM_WORLD
    mine = np.ones(nbytes, np.uint8) if world.rank == 0 else np.zeros(nbytes, np.uint8)
    shared = sharedmem.asshared(mine) if world.rank == 0 else None

    def by_bcast() -> Any:
        world.Bcast([mine, MPI.BYTE], 0)
        return mine, None

    def by_window() -> Any:
        window = MPI.Win.Allocate_shared(nbytes if world.rank == 0 else 0, 1, comm=node)
        found = np.frombuffer(window.Shared_query(0)[0], np.uint8)
        if world.rank == 0:
            found[:] = mine
        node.Barrier()
        return found, window

    return {
        "Bcast": by_bcast,
        "window": by_window,
        "copy": lambda: (sharedmem.mpi.bcast(mine, 0, node), None),
        "handle": lambda: (sharedmem.mpi.bcast(shared, 0, node), None),
    }


def seconds(nbytes: int, node: Any, rounds: int) -> dict[str, list[float]]:
    """The times of each way; the first round does not count."""
    world = MPI.COMM_WORLD
    ways = ways_of(nbytes, node)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            world.Barrier()
            start = time.perf_counter()
            found, window = way()
            if found[::PAGE].sum(dtype=int) != -(-nbytes // PAGE):
                raise RuntimeError(f"{name}: the array did not arrive as it was sent")
            world.Barrier()
            if number:
                times[name].append(time.perf_counter() - start)
            del found
            if window is not None:
                window.Free()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="in bytes")
    parser.add_argument("--json", action="store_true", help="print times in seconds, by size and way")
    options = parser.parse_args()
    world = MPI.COMM_WORLD
    node = sharedmem.mpi.node(world)
    if node.size != world.size:
        raise SystemExit("the ranks cannot use each other's memory")
    sizes = [int(size) for size in options.sizes.split(",")]
    found = {nbytes: seconds(nbytes, node, options.rounds) for nbytes in sizes}
    node.Free()
    if world.rank != 0:
        return
    if options.json:
        print(json.dumps([[nbytes, times] for nbytes, times in found.items()]))
        return
    for nbytes, times in found.items():
        first = times["Bcast"]
        for name, each in times.items():
            median = statistics.median(each)
            print(
                f"{nbytes >> 20:>4} MiB {name:8}{median * 1e3:11.2f} ({min(each) * 1e3:7.2f}) ms"
                f"{statistics.median(first) / median:7.1f} ({min(first) / min(each):5.1f}) x Bcast"
            )


if __name__ == "__main__":
    main()
