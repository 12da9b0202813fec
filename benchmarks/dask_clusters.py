"""Clusters of Dask with two workers on this host, and what the cases about Dask have them do.

Each way is a protocol and a function that makes arrays:

tcp             Dask's own protocol and NumPy's arrays: what users have without this library
NumPy's arrays  the protocol "sharedmem" and NumPy's arrays, which are copied into shared memory on each hop
our arrays      the protocol "sharedmem" and arrays that this library has allocated, which go by handle

Whoever receives an array reads one byte of each page of it: memory that nobody has looked at costs nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

PAGE = 4096
PROTOCOLS = ("tcp", "sharedmem")


def plain(nbytes: int) -> np.ndarray:
    return np.ones(nbytes, np.uint8)


def shared(nbytes: int) -> np.ndarray:
    return importlib.import_module("sharedmem").ones(nbytes, np.uint8)


def look(array: np.ndarray) -> int:
    """The size of an array of ones in pages."""
    return int(array[::PAGE].sum(dtype=np.int64))


def handles() -> int:
    """How many buffers this process has sent or received by handle."""
    tally = importlib.import_module("sharedmem.dask").tally()
    return tally["handles"] + tally["opened"]


def keys(dask_worker: Any) -> int:
    """How many results a worker has."""
    return len(dask_worker.data)


#: The protocol and the maker of arrays of each way; "tcp" is what the others are compared with.
WAYS: dict[str, tuple[str, Callable[[int], np.ndarray]]] = {
    "tcp": ("tcp", plain),
    "NumPy's arrays": ("sharedmem", plain),
    "our arrays": ("sharedmem", shared),
}


class Cluster:
    """Two workers of one thread each, and a client of them."""

    def __init__(self, protocol: str) -> None:
        distributed = importlib.import_module("distributed")
        self._wait = distributed.wait
        self.cluster = distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, protocol=protocol, dashboard_address=None
        )
        self.client = distributed.Client(self.cluster, set_as_default=False)
        self.client.wait_for_workers(2)
        self.workers = sorted(self.client.scheduler_info(n_workers=-1)["workers"])

    def close(self) -> None:
        self.client.close()
        self.cluster.close()

    def settle(self) -> None:
        """Wait until the workers have forgotten the results that nobody wants any more."""
        end = time.monotonic() + 60
        while any(self.client.run(keys).values()):
            if time.monotonic() > end:
                raise RuntimeError("workers keep results of which no futures are left")
            time.sleep(0.01)

    def wait_for(self, futures: Any) -> None:
        """Wait until workers have what the futures stand for."""
        with self.client.as_current():
            self._wait(futures)

    def made(self, make: Callable[[int], np.ndarray], nbytes: int) -> Any:
        """The future of an array that the first worker has."""
        future = self.client.submit(make, nbytes, workers=[self.workers[0]], pure=False)
        self.wait_for(future)
        return future

    def looked_at(self, future: Any, worker: int) -> int:
        """What a task on one of the workers finds."""
        return self.client.submit(look, future, workers=[self.workers[worker]], pure=False).result()

    def by_handle(self) -> bool:
        """Whether anything went by handle between the workers so far."""
        return any(self.client.run(handles).values())


@contextlib.contextmanager
def clusters() -> Iterator[dict[str, Cluster]]:
    """A cluster for each protocol, both at the same time."""
    with contextlib.ExitStack() as stack:
        made = {}
        for protocol in PROTOCOLS:
            made[protocol] = Cluster(protocol)
            stack.callback(made[protocol].close)
        yield made


# -- what is done with one array; each gives the seconds that it took, and what was found in the end


def worker_to_worker(cluster: Cluster, make: Callable[[int], np.ndarray], nbytes: int) -> tuple[float, int]:
    """A task on the second worker takes an array of the first one."""
    future = cluster.made(make, nbytes)
    start = time.perf_counter()
    found = cluster.looked_at(future, 1)
    return time.perf_counter() - start, found


def gather(cluster: Cluster, make: Callable[[int], np.ndarray], nbytes: int) -> tuple[float, int]:
    """The client takes an array of a worker."""
    future = cluster.made(make, nbytes)
    start = time.perf_counter()
    found = look(future.result())
    return time.perf_counter() - start, found


def scatter(cluster: Cluster, make: Callable[[int], np.ndarray], nbytes: int) -> tuple[float, int]:
    """The client gives an array to one worker; that a task then reads it is not timed."""
    array = make(nbytes)
    start = time.perf_counter()
    future = cluster.client.scatter(array, hash=False)
    taken = time.perf_counter() - start
    return taken, cluster.client.submit(look, future, pure=False).result()


def broadcast(cluster: Cluster, make: Callable[[int], np.ndarray], nbytes: int) -> tuple[float, int]:
    """The client gives an array to both workers, and a task on each reads it."""
    array = make(nbytes)
    start = time.perf_counter()
    future = cluster.client.scatter(array, hash=False, broadcast=True)
    found = [cluster.looked_at(future, worker) for worker in range(2)]
    taken = time.perf_counter() - start
    return taken, found[0] if found[0] == found[1] else -1


#: What is done with one array, by name.
TRANSFERS = {
    "worker to worker": worker_to_worker,
    "gather": gather,
    "scatter": scatter,
    "broadcast": broadcast,
}
