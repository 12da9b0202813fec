"""`sharedmem.mpi.bcast` and MPI's own ways to give an array to the ranks of a node.

    mpirun -n 2 python -m benchmarks.engines.mpi_bcast [--rounds 9]

Timed at rank 0, from one barrier to the next, in turns; at the end each rank has read one byte of each page:

Bcast       `comm.Bcast` of a private array into private ones that are there already
window      `MPI.Win.Allocate_shared`, which the root fills from its array
copy        `sharedmem.mpi.bcast` of a private array: one copy
handle      `sharedmem.mpi.bcast` of an array in shared memory
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
from mpi4py import MPI

import sharedmem.mpi

SIZES = (6 << 20, 256 << 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    world = MPI.COMM_WORLD
    node = sharedmem.mpi.node(world)
    assert node.size == world.size, "all ranks on one host"
    for nbytes in SIZES:
        mine = np.ones(nbytes, np.uint8) if world.rank == 0 else np.zeros(nbytes, np.uint8)
        shared = sharedmem.asshared(mine) if world.rank == 0 else None

        def by_bcast(mine=mine):
            world.Bcast([mine, MPI.BYTE], 0)
            return mine

        def by_window(mine=mine, nbytes=nbytes):
            window = MPI.Win.Allocate_shared(nbytes if world.rank == 0 else 0, 1, comm=node)
            found = np.frombuffer(window.Shared_query(0)[0], np.uint8)
            if world.rank == 0:
                found[:] = mine
            node.Barrier()
            return found, window

        ways = {
            "Bcast": by_bcast,
            "window": by_window,
            "copy": lambda mine=mine: sharedmem.mpi.bcast(mine, 0, node),
            "handle": lambda shared=shared: sharedmem.mpi.bcast(shared, 0, node),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, way in ways.items():
                world.Barrier()
                start = time.perf_counter()
                found = way()
                window = None
                if isinstance(found, tuple):
                    found, window = found
                assert found[::4096].sum(dtype=int) == nbytes // 4096
                world.Barrier()
                if number:
                    times[name].append((time.perf_counter() - start) * 1e3)
                del found
                if window is not None:
                    window.Free()
        if world.rank == 0:
            first = statistics.median(times["Bcast"])
            for name, each in times.items():
                median = statistics.median(each)
                print(
                    f"{nbytes >> 20:>4} MiB {name:8}{median:11.2f} ({min(each):7.2f}) ms"
                    f"{first / median:7.1f} ({min(times['Bcast']) / min(each):5.1f}) x Bcast",
                    flush=True,
                )
    node.Free()


if __name__ == "__main__":
    main()
