"""One array for all ranks of an MPI program on a host, by MPI and by `sharedmem.mpi.bcast`.

`benchmarks.engines.mpi_bcast` says what each way is, and what is timed. It is started by ``mpirun`` with two
ranks and with four: `Bcast` makes a copy for each rank but one, and the others at most one for all. The ways
take turns; a point has the fastest of these calls.

Points that end in "times Bcast" or "times window" say how often a way's time fits into that.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator

from ..contenders.base import Contender
from ..model import Amount, Case, Goal, Sample, Setting

RANKS = (2, 4)


def run(ranks: int, sizes: list[int], rounds: int) -> list[dict[str, list[float]]]:
    """The seconds of each way, for each size."""
    mpirun = shutil.which("mpirun")
    if mpirun is None:
        raise RuntimeError("mpirun is not there: it comes with an implementation of MPI")
    command = [mpirun, "--allow-run-as-root", "--oversubscribe", "-n", str(ranks)]
    # Ranks that wait leave the core to others: there may be fewer cores than ranks.
    command += ["--mca", "mpi_yield_when_idle", "1"]
    command += [sys.executable, "-m", "benchmarks.engines.mpi_bcast", "--json", "--rounds", str(rounds)]
    command += ["--sizes", ",".join(map(str, sizes))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"mpirun ended with {done.returncode}: {done.stderr}")
    return [times for _, times in json.loads(done.stdout)]


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    sizes = {name: setting[name] for name in ("small", "large")}
    for ranks in RANKS:
        for name, times in zip(sizes, run(ranks, list(sizes.values()), setting["rounds"]), strict=True):
            best = {way: min(each) for way, each in times.items()}
            point = f"{ranks} ranks, {name}"
            for way, found in best.items():
                yield Sample(f"{point}, {way}", found)
            for way in ("copy", "handle"):
                for theirs in ("Bcast", "window"):
                    yield Sample(f"{point}, {way}, times {theirs}", best[theirs] / best[way], "times")


CASE = Case(
    name="mpi",
    title="MPI, two and four ranks on one host, an array of {small} or {large}",
    measure=measure,
    contenders=("sharedmem",),
    floor="sharedmem",
    doc=__doc__,
    amounts={
        "small": Amount(6 << 20, 1 << 20),
        "large": Amount(256 << 20, 8 << 20),
        "rounds": Amount(9, 2, "times"),
    },
    goals=(
        *(Goal(f"{ranks} ranks, large, handle, times Bcast", at_least=10) for ranks in RANKS),
        *(Goal(f"{ranks} ranks, large, copy, times Bcast", at_least=1.5) for ranks in RANKS),
        *(Goal(f"{ranks} ranks, large, copy, times window", at_least=10) for ranks in RANKS),
    ),
    timeout=600.0,
    needs=("mpi4py",),
)
