"""joblib's backends "sharedmem" and "loky": arrays given to tasks, and results.

    python -m benchmarks.engines.joblib_calls [--rounds 9]

Loky has one pool of workers in a process, so each backend has a process of its own; these take turns, call by
call. Timed is one call of `joblib.Parallel` with two workers that run already:

given     one array to 4 tasks that read a byte of each page, a new array in each call
results   2 tasks, each of which makes an array, of which the caller reads a byte of each page
shared    the same with arrays of `sharedmem.empty`, which loky carries by handle, too

Making the array that is given is not timed; the tasks' making of results is.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from typing import Any

import numpy as np

SIZES = (6 << 20, 256 << 20)
BACKENDS = ("loky", "sharedmem")


def add_up(a: np.ndarray) -> float:
    return float(a[:: 4096 // a.itemsize].sum())


def make(nbytes: int, shared: bool) -> np.ndarray:
    import sharedmem

    a: np.ndarray = sharedmem.empty(nbytes, np.uint8) if shared else np.empty(nbytes, np.uint8)
    a[:] = 1
    return a


def call(what: str, nbytes: int) -> float:
    """Seconds of one call."""
    from joblib import Parallel, delayed

    shared = what.endswith("shared")
    if what.startswith("given"):
        a = make(nbytes, shared)
        start = time.perf_counter()
        found = sum(Parallel()(delayed(add_up)(a) for _ in range(4)))
        assert found == 4 * nbytes / 4096
    else:
        start = time.perf_counter()
        results = Parallel()(delayed(make)(nbytes, shared) for _ in range(2))
        assert sum(map(add_up, results)) == 2 * nbytes / 4096
    return time.perf_counter() - start


def serve(connection: Any, backend: str) -> None:
    """Runs calls with a backend, as they are asked for."""
    import joblib
    from joblib.externals.loky import get_reusable_executor

    import sharedmem  # noqa: F401
    from benchmarks.engines.joblib_calls import call  # this module's name in workers of workers

    with joblib.parallel_config(backend=backend, n_jobs=2):
        while (asked := connection.recv()) is not None:
            connection.send(call(*asked))
    get_reusable_executor().shutdown(kill_workers=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    context = multiprocessing.get_context("spawn")
    ends = {}
    for backend in BACKENDS:
        ends[backend], theirs = context.Pipe()
        context.Process(target=serve, args=(theirs, backend)).start()
        theirs.close()
    print(f"{'':24}" + "".join(f"{backend:>22}" for backend in BACKENDS) + f"{'ratio':>14}")
    for nbytes in SIZES:
        for what in ("given", "given, shared", "results", "results, shared"):
            times: dict[str, list[float]] = {backend: [] for backend in BACKENDS}
            for number in range(rounds + 1):
                for backend, end in ends.items():
                    end.send((what, nbytes))
                    taken = end.recv()
                    if number:
                        times[backend].append(taken * 1e3)
            medians = {name: statistics.median(each) for name, each in times.items()}
            best = {name: min(each) for name, each in times.items()}
            print(
                f"{nbytes >> 20:>4} MiB {what:15}"
                + "".join(f"{medians[name]:11.1f} ({best[name]:5.1f}) ms" for name in BACKENDS)
                + f"{medians['loky'] / medians['sharedmem']:6.1f} ({best['loky'] / best['sharedmem']:4.1f})",
                flush=True,
            )
    for end in ends.values():
        end.send(None)


if __name__ == "__main__":
    main()
