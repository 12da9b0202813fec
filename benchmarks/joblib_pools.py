"""Programs that call `joblib.Parallel` with two workers, and what the cases about joblib have them do.

Loky has one pool of workers in a process, so each way has a process of its own, which is asked for one call
after the other. Each way is a backend and a function that makes arrays:

loky            joblib's default and NumPy's arrays, in a program that does not import this library
NumPy's arrays  the backend "sharedmem" and NumPy's arrays
our arrays      the backend "sharedmem" and arrays that this library has allocated, which go by handle

What is done with arrays of one size:

given    one array, a new one each time, to four tasks
results  two tasks each return an array that their worker has already
made     two tasks each make an array of ones and return it

Whoever receives an array reads one byte of each page of it. Timed is a call of `Parallel` until its results
have been read. Not timed: starting workers, making the array that is given, forgetting results.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

PAGE = 4096
WORKERS = 2
TASKS = {"given": 4, "results": WORKERS, "made": WORKERS}

#: In a worker: the array of each size that it returns.
_held: dict[int, np.ndarray] = {}


def plain(nbytes: int) -> np.ndarray:
    return np.ones(nbytes, np.uint8)


def shared(nbytes: int) -> np.ndarray:
    return importlib.import_module("sharedmem").ones(nbytes, np.uint8)


#: The backend and the maker of arrays of each way; "loky" is what the others are compared with.
WAYS: dict[str, tuple[str, Callable[[int], np.ndarray]]] = {
    "loky": ("loky", plain),
    "NumPy's arrays": ("sharedmem", plain),
    "our arrays": ("sharedmem", shared),
}


def look(array: np.ndarray) -> int:
    """The size of an array of ones in pages."""
    return int(array[::PAGE].sum(dtype=np.int64))


def held(make: Callable[[int], np.ndarray], nbytes: int) -> np.ndarray:
    """The array of a worker, which is made once."""
    if nbytes not in _held:
        _held.clear()
        _held[nbytes] = make(nbytes)
    return _held[nbytes]


# -- what a program does


def transfer(joblib: Any, what: str, make: Callable[[int], np.ndarray], nbytes: int) -> tuple[float, int]:
    """Seconds of one call, and the size in pages of all that arrived."""
    count = TASKS[what]
    given = make(nbytes) if what == "given" else None
    start = time.perf_counter()
    parallel = joblib.Parallel(batch_size=1)
    if what == "given":
        found = parallel(joblib.delayed(look)(given) for _ in range(count))
    elif what == "results":
        found = map(look, parallel(joblib.delayed(held)(make, nbytes) for _ in range(count)))
    else:
        found = map(look, parallel(joblib.delayed(make)(nbytes) for _ in range(count)))
    pages = sum(found)
    return time.perf_counter() - start, pages


def small_tasks(joblib: Any, count: int) -> tuple[float, int]:
    """Seconds of a call with tasks that do nothing, and their number."""
    start = time.perf_counter()
    found = joblib.Parallel(batch_size=1)(joblib.delayed(abs)(number) for number in range(count))
    return time.perf_counter() - start, len(found)


def serve(way: str) -> None:
    """Runs what lines of the standard input ask for, and answers each by a line."""
    joblib = importlib.import_module("joblib")
    loky = importlib.import_module("joblib.externals.loky.reusable_executor")
    pools = importlib.import_module("benchmarks.joblib_pools")  # its functions travel by this name
    backend, make = WAYS[way]
    if backend == "sharedmem":
        importlib.import_module("sharedmem")
    try:
        with joblib.parallel_config(backend=backend, n_jobs=WORKERS):
            pools.small_tasks(joblib, 4 * WORKERS)
            print(json.dumps(sorted(loky._executor._processes)), flush=True)
            for line in sys.stdin:
                what, amount = json.loads(line)
                if what == "tasks":
                    answer = pools.small_tasks(joblib, amount)
                else:
                    answer = pools.transfer(joblib, what, getattr(pools, make.__name__), amount)
                print(json.dumps(answer), flush=True)
        if backend == "loky" and "sharedmem" in sys.modules:
            raise RuntimeError("the program with joblib's default has imported this library")
    finally:
        loky._executor.shutdown(kill_workers=True)


# -- the other end


class Pool:
    """A program with one way."""

    def __init__(self, way: str) -> None:
        # Not by multiprocessing, which would have the program import what this one has imported.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.joblib_pools", way],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        #: Of the program and of its workers.
        self.pids = [self.process.pid, *self._read()]

    def _read(self) -> Any:
        line = self.process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise RuntimeError("a program with workers of joblib ended too early")
        return json.loads(line)

    def ask(self, what: str, amount: int) -> None:
        """Have it do something, whose seconds `answer` gives."""
        print(json.dumps([what, amount]), file=self.process.stdin, flush=True)
        self.expected = amount if what == "tasks" else TASKS[what] * -(-amount // PAGE)

    def ready(self, timeout: float) -> bool:
        """Whether it has answered within some seconds."""
        return bool(select.select([self.process.stdout], [], [], timeout)[0])  # type: ignore[type-var]

    def answer(self) -> float:
        seconds, found = self._read()
        if found != self.expected:
            raise RuntimeError(f"what arrived is not what was sent: {found} instead of {self.expected}")
        return float(seconds)

    def close(self) -> None:
        try:
            self.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
        if self.process.wait() != 0:
            raise RuntimeError(f"a program with workers of joblib ended with {self.process.returncode}")


@contextlib.contextmanager
def pools() -> Iterator[dict[str, Pool]]:
    """A program for each way."""
    with contextlib.ExitStack() as stack:
        made = {}
        for way in WAYS:
            made[way] = Pool(way)
            stack.callback(made[way].close)
        yield made


if __name__ == "__main__":
    serve(sys.argv[1])
