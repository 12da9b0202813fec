"""Workers of joblib that are killed while arrays travel: ``python -m tests.chaos_joblib --minutes 2``.

Calls of ``joblib.Parallel`` with the backend "sharedmem" give arrays of every kind to tasks, and get arrays
back, while a thread stops and kills workers at random moments. A call returns all its results, each with the
right checksum, or raises loky's `TerminatedWorkerError`; the next call has new workers. Results of earlier
calls, whose workers have ended, keep their values; what is private is written into, and no other process sees
that. In the end nothing is left.
"""

import argparse
import contextlib
import faulthandler
import gc
import os
import random
import shutil
import signal
import tempfile
import threading
import time
import warnings

import joblib
import numpy as np
from joblib.externals.loky import get_reusable_executor, reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

import sharedmem
from sharedmem import is_shared

PATIENCE = 120  # seconds of one call: it hangs
SIZES = (10, 20_000, 200_000, 1_500_000)  # of float64: pickled, carried, as a large input, of 12 MB
RESULTS_KEPT = 12


def values(number, size):
    """What an array of that number has: no two of them have an element in common."""
    return np.arange(size, dtype=np.float64) + number * 2.0**32


def task(number, size, plain, shared, kind, slot):
    """Checks what it got, writes into what is shared, and returns an array of its own."""
    if plain is not None and not (plain == values(number // 1000, len(plain))).all():
        return "wrong input"
    if shared is not None:
        if not is_shared(shared):
            return "an array in shared memory did not arrive as one"
        shared[slot] = number
    time.sleep(random.random() * 0.01)
    if kind == "input":
        return plain if plain is not None else values(number // 1000, 10)
    made = values(number, size)
    if kind == "shared":
        return sharedmem.array(made)
    return {"array": made, "view": made[::3]} if kind == "dict" else made


class Killer(threading.Thread):
    """Stops and kills workers, at random moments, until told to end."""

    def __init__(self, rng, pause):
        super().__init__(daemon=True)
        self.rng = rng
        self.pause = pause
        self.ended = threading.Event()
        self.kills = 0

    def run(self):
        while not self.ended.wait(self.rng.expovariate(1 / self.pause)):
            executor = reusable_executor._executor
            pids = list(getattr(executor, "_processes", None) or ())
            if not pids:
                continue
            pid = self.rng.choice(pids)
            with contextlib.suppress(ProcessLookupError):
                if self.rng.random() < 0.3:  # where a message is half written, for instance
                    os.kill(pid, signal.SIGSTOP)
                    time.sleep(self.rng.random() * 0.05)
                os.kill(pid, signal.SIGKILL)
                self.kills += 1


class Checked:
    """Results that are kept for a while, and counts of what was found."""

    def __init__(self):
        self.kept = []
        self.checked = 0
        self.wrong = []

    def check(self, kind, number, size, found):
        if isinstance(found, str):
            self.wrong.append(found)
            return
        if any(found is each for each, _ in self.kept):
            return  # two tasks of one batch got, and returned, one object
        size, number = (len(found), number // 1000) if kind == "input" else (size, number)
        expected = values(number, size)
        if kind == "dict":
            if not (found["view"] == expected[::3]).all():
                self.wrong.append("wrong view")
            found = found["array"]
        if is_shared(found) != (kind == "shared") or not found.flags.writeable:
            self.wrong.append(f"{kind}: shared {is_shared(found)}, writable {found.flags.writeable}")
        if not np.array_equal(found, expected):
            self.wrong.append(f"{kind}: wrong values")
        self.checked += 1
        found += 1  # no other process may see it or write to it
        self.kept.append((found, expected + 1))

    def again(self):
        """Check what is kept, and forget the oldest."""
        for found, expected in self.kept:
            if not np.array_equal(found, expected):
                self.wrong.append("a result changed after it had arrived")
        del self.kept[:-RESULTS_KEPT]


def call(rng, number, checked, parallel):
    """One call; whether it returned."""
    tasks = rng.randrange(2, 12)
    kind = rng.choice(("plain", "plain", "dict", "shared", "input"))
    size = rng.choice(SIZES)
    plain = values(number, rng.choice(SIZES)) if rng.random() < 0.7 else None
    shared = sharedmem.zeros(tasks) if rng.random() < 0.5 else None
    numbers = [number * 1000 + n for n in range(tasks)]
    function = joblib.delayed(task)
    try:
        found = parallel(function(n, size, plain, shared, kind, i) for i, n in enumerate(numbers))
    except TerminatedWorkerError:
        return False
    if len(found) != tasks:
        checked.wrong.append("a result is missing")
    if shared is not None and list(shared) != numbers:
        checked.wrong.append("what tasks wrote into shared memory")
    for each, result in zip(numbers, found, strict=True):
        checked.check(kind, each, size, result)
    return True


def left(before):
    """What is left when all has ended: leases, and bytes of arrays."""
    end = time.monotonic() + 60
    while True:
        gc.collect()
        sharedmem.collect(leases=True)
        numbers = sharedmem.stats()
        leases, live = numbers["leases"], numbers["live_bytes"] - before
        if (leases == 0 and live <= 0) or time.monotonic() > end:
            return leases, max(live, 0)
        time.sleep(0.05)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--pause", type=float, default=1.5, help="seconds between two kills, on average")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    folder = os.environ["JOBLIB_TEMP_FOLDER"] = tempfile.mkdtemp()
    mine = sharedmem.zeros(1)
    del mine
    before = sharedmem.stats()["live_bytes"]
    killer = Killer(random.Random(rng.random()), options.pause)
    checked = Checked()
    calls = broken = 0
    warnings.filterwarnings("ignore", message="A worker stopped")  # loky's, of each that was killed
    end = time.monotonic() + options.minutes * 60
    killer.start()
    with joblib.parallel_config(backend="sharedmem", n_jobs=options.workers):
        while time.monotonic() < end:
            faulthandler.dump_traceback_later(PATIENCE, exit=True)
            calls += 1
            batch = rng.choice((1, 2, "auto"))
            broken += not call(rng, calls, checked, joblib.Parallel(batch_size=batch))
            checked.again()
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    killer.ended.set()
    killer.join()
    with joblib.parallel_config(backend="sharedmem", n_jobs=options.workers):
        with contextlib.suppress(TerminatedWorkerError):  # the last kill may not have been noticed yet
            call(rng, calls + 1, checked, joblib.Parallel())
        if not call(rng, calls + 2, checked, joblib.Parallel()):
            checked.wrong.append("a call after the last kill did not return")
    get_reusable_executor().shutdown(kill_workers=True)
    checked.kept.clear()
    leases, live = left(before)
    files = os.listdir(folder)
    shutil.rmtree(folder)
    faulthandler.cancel_dump_traceback_later()
    print(
        f"{calls} calls, {killer.kills} kills, {broken} calls ended by them, {checked.checked} results "
        f"checked, {len(checked.wrong)} wrong; left: {leases} leases, {live} bytes, {len(files)} files"
    )
    for each in sorted(set(checked.wrong)):
        print(f"  {checked.wrong.count(each)} times: {each}")
    if checked.wrong or leases or live or files or not checked.checked:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
