"""What `tests.chaos_dask` has a cluster do: tasks on arrays with checksums, and programs that submit them.

``python chaos_dask_work.py ADDRESS SEED RECHUNK`` is such a program. For each number of seconds that it reads
it works for so long, forgets all, and prints a line of JSON with its counts.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
import time
import traceback
import zlib
from collections import Counter
from concurrent.futures import CancelledError
from typing import Any

import chaos_dask_left
import numpy as np

import sharedmem
import sharedmem.dask

PATIENCE = 180  # seconds after which a task counts as hung
SIZES = (10, 3_000, 5_000, 40_000, 300_000)  # of 8 bytes: as bytes, just above what is carried, several pages
CHAINS = 6  # at one time


# -- values


class Own:
    """A class of which Dask knows nothing."""

    def __init__(self, a: np.ndarray) -> None:
        self.parts = {"all": a, "view": a[2:]}


def pandas_frame(a: np.ndarray) -> Any:
    import pandas

    return pandas.DataFrame(a.reshape(-1, 2), columns=list("ab"), copy=False)


def frozen(a: np.ndarray) -> np.ndarray:
    a.setflags(write=False)
    return a


WRAPPED = {
    "array": lambda a: a,
    "tuple": lambda a: ("text", a, 1),
    "own": Own,
    "frame": pandas_frame,
    "frozen": frozen,
    "two": lambda a: [a[: len(a) // 2], a[len(a) // 2 :]],
}
UNWRAPPED = {
    "array": np.asarray,
    "tuple": lambda obj: obj[1],
    "own": lambda obj: obj.parts["all"] if np.array_equal(*viewed(obj)) else obj.parts["all"][:0],
    "frame": lambda obj: np.ascontiguousarray(obj.to_numpy()).reshape(-1),
    "frozen": np.asarray,
    "two": lambda obj: np.concatenate(obj),
}


def viewed(obj: Own) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(obj.parts["all"][2:]), np.asarray(obj.parts["view"])


class Value:
    """What an object must be: said by whoever asked for it."""

    def __init__(self, rng: random.Random) -> None:
        self.token = rng.getrandbits(60)
        self.kind = rng.choice(list(WRAPPED))
        self.shared = rng.random() < 0.5
        self.size = rng.choice(SIZES)

    def make(self) -> Any:
        a = (sharedmem.empty if self.shared else np.empty)(self.size, np.int64)
        a[2:] = self.token + np.arange(self.size - 2)
        a[0] = self.token
        a[1] = zlib.crc32(a[2:])
        return WRAPPED[self.kind](a)

    def is_right(self, obj: Any) -> bool:
        a = UNWRAPPED[self.kind](obj)
        return (
            len(a) == self.size
            and int(a[0]) == self.token
            and int(a[1]) == zlib.crc32(np.ascontiguousarray(a[2:]))
        )


# -- tasks


def make(value: Value) -> Any:
    return value.make()


def pass_on(obj: Any, value: Value) -> Any:
    """An object that may have come from another worker, and is sent on by this one."""
    if not value.is_right(obj):
        raise ValueError("WRONG on its way")
    time.sleep(0.005)
    return obj


def check(values: list[Value], *objects: Any) -> list[bool]:
    return [value.is_right(obj) for value, obj in zip(values, objects, strict=True)]


def grid(n: int) -> np.ndarray:
    return sharedmem.array(np.arange(float(n * n)).reshape(n, n))


# -- what workers say when there is nothing to do


def loose_segments() -> int:
    """System V segments of this place that no process has attached: nobody would ever use them again."""
    try:
        with open("/proc/sysvipc/shm") as table:
            return sum(line.split()[6] == "0" for line in list(table)[1:])
    except FileNotFoundError:
        return 0


def look(dask_worker: Any = None, dask_scheduler: Any = None) -> dict[str, int]:
    """What a process of the cluster, or this one, has."""
    gc.collect()
    sharedmem.collect()
    stats = sharedmem.stats()
    data = getattr(dask_worker, "data", None)
    return {
        "bytes": stats["live_bytes"],
        "leases": stats["leases"],
        "loose": loose_segments(),
        "spilled": getattr(data, "cumulative_metrics", {}).get(("disk-write", "count"), 0),
        **{name: sharedmem.dask.tally()[name] for name in ("handles", "opened")},
    }


def forget_failures() -> None:
    """Have Dask drop what it keeps of transfers that failed, with the arrays in them.

    These are records in the logs of its servers, whose tracebacks have frames with arrays, and connections
    that failed while they were written or read. With this library's protocol neither of them stays.
    """
    from distributed.comm.tcp import TCP
    from distributed.utils import DequeHandler

    DequeHandler.clear_all_instances()
    for each in gc.get_objects():
        if type(each) is TCP and each.closed():
            each._finalizer.detach()


def count_workers(dask_scheduler: Any) -> int:
    return len(dask_scheduler.workers)


def tasks(dask_scheduler: Any) -> list[str]:
    """What the scheduler knows of tasks that do not end, or that nobody has forgotten."""
    return [
        f"{task.key} {task.state} on {task.processing_on} of {[str(w) for w in task.who_has or ()]} for "
        f"{[str(client) for client in task.who_wants or ()]}, after {[str(t) for t in task.waiting_on or ()]}"
        for task in dask_scheduler.tasks.values()
    ]


# -- a program that uses the cluster


class User:
    """Submits tasks, and checks what comes of them."""

    def __init__(self, client: Any, seed: int, rechunk: str) -> None:
        self.client = client
        self.rechunk = rechunk  # Dask's method
        self.rng = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.told: list[str] = []

    def work(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.counts["hung"]:
            what = self.rng.choices((self.chains, self.scattered, self.rechunked), (10, 4, 1))[0]
            try:
                what()
            except Exception as error:
                self.note(error)

    def note(self, error: BaseException) -> None:
        """Counts what went wrong. What a killed worker had from a user alone is lost with it.

        Dask's client keeps the exception of a future that was cancelled. Raising it gives it the frames of
        whoever asked for the result: these have the future, so that it is kept for ever, and arrays.
        """
        text = "".join(traceback.format_exception(error))
        error.__traceback__ = None
        if "StaleHandleError" in text:
            what = "stale"
        elif "WRONG" in text:
            what = "wrong"
        elif isinstance(error, TimeoutError):
            what = "hung"
        elif isinstance(error, CancelledError) or "P2P" in text:
            what = "lost"
        else:
            what = "failed"
        self.counts[what] += 1
        if what == "hung":
            text += "\n".join(self.client.run_on_scheduler(tasks))
        if what != "lost":
            self.told.append(f"{what}: {text}")

    def anywhere(self) -> dict[str, Any]:
        """Where a task would best run: it runs elsewhere if that worker is killed."""
        workers = list(self.client.scheduler_info(n_workers=-1)["workers"])
        where = {"workers": [self.rng.choice(workers)], "allow_other_workers": True} if workers else {}
        return {"pure": False, **where}

    def chains(self) -> None:
        """Objects that are made, passed on once or twice, checked in groups, and some of them fetched."""
        values = [Value(self.rng) for _ in range(CHAINS)]
        made = [self.client.submit(make, value, **self.anywhere()) for value in values]
        ends = list(made)
        for i, value in enumerate(values):
            for _ in range(self.rng.randrange(3)):
                ends[i] = self.client.submit(pass_on, ends[i], value, **self.anywhere())
        asked = self.rng.sample(range(CHAINS), 3)
        group = [values[i] for i in asked]
        checked = self.client.submit(check, group, *(ends[i] for i in asked), **self.anywhere())
        for i in range(CHAINS):
            self.fetched(ends[i], values[i])
        self.count(checked.result(timeout=PATIENCE))
        i = self.rng.choice(asked)
        self.fetched(made[i], values[i])

    def fetched(self, future: Any, value: Value) -> None:
        """Checks an object here, and overwrites it, if it is private: nobody else may see that."""
        try:
            obj = future.result(timeout=PATIENCE)
        except Exception as error:
            self.note(error)
            return
        self.count([value.is_right(obj)])
        a = UNWRAPPED[value.kind](obj)
        if not value.shared and a.flags.writeable:
            a[:] = 0

    def scattered(self) -> None:
        """Objects of this process that tasks use, sent before or as their arguments."""
        value = Value(self.rng)
        obj = value.make()
        if self.rng.random() < 0.3:
            done = self.client.submit(check, [value], obj, **self.anywhere())
        else:
            # Not to all workers: Dask never ends a broadcast to one that is killed (`Scheduler.replicate`).
            try:
                there = self.client.scatter(obj, direct=self.rng.random() < 0.5, hash=False, timeout=PATIENCE)
            except (OSError, KeyError) as error:
                # A worker was killed that was to get it, or that had it already and is no longer known to
                # the scheduler, which looks for its address. Dask tries no other one.
                if isinstance(error, KeyError) and "://" not in str(error):
                    raise
                self.counts["lost"] += 1
                return
            a = UNWRAPPED[value.kind](obj)
            if not value.shared and a.flags.writeable:
                a[:] = 0
            done = self.client.submit(check, [value], there, **self.anywhere())
        self.count(done.result(timeout=PATIENCE))

    def rechunked(self) -> None:
        """An array whose chunks all workers exchange."""
        import dask
        import dask.array

        n = 300
        with dask.config.set({"array.rechunk.method": self.rechunk}):
            x = dask.array.from_delayed(dask.delayed(grid)(n), (n, n), dtype="f8").rechunk((50, n))
            future = self.client.compute(x.rechunk((n, 50)).rechunk((100, 100)))
            self.count([np.array_equal(future.result(timeout=PATIENCE), np.asarray(grid(n)))])

    def count(self, right: list[bool]) -> None:
        self.counts["checked"] += len(right)
        if not all(right):
            self.counts["wrong"] += right.count(False)
            self.told.append("wrong: where it was checked")


def main(address: str, seed: str, rechunk: str) -> None:
    import distributed

    with distributed.Client(address, timeout=PATIENCE) as client:
        user = User(client, int(seed), rechunk)
        print("ready", flush=True)
        for line in sys.stdin:
            user.work(float(line))
            end = time.monotonic() + PATIENCE
            while (found := look())["bytes"] > 100_000 or found["leases"]:
                if time.monotonic() > end:
                    user.counts["left"] += 1
                    user.told += [f"left in a user: {found}", *chaos_dask_left.holders()]
                    break
                time.sleep(0.2)
            said = {**user.counts, "handles": found["handles"], "opened": found["opened"], "told": user.told}
            print(json.dumps(said), flush=True)
            user.counts.clear()
            user.told = []


if __name__ == "__main__":
    # Functions of this module are found by its name, in workers too.
    import chaos_dask_work

    chaos_dask_work.main(*sys.argv[1:])
    os._exit(0)
