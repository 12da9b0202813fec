"""Processes that share arrays and are killed at random: ``python -m tests.chaos --minutes 2``.

Workers allocate, write patterns, send, receive, fork and drop; the controller passes arrays between
them, kills one every few milliseconds with SIGKILL and starts another. Every array travels with its
checksum. At the end nothing may be lost, leaked or hung, and the counts are printed.
"""

import argparse
import contextlib
import multiprocessing
import os
import random
import signal
import sys
import time
import zlib
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait

import numpy as np

import sharedmem

START_METHODS = ("fork", "spawn", "forkserver")
PATIENCE = 60.0  # seconds without a word from a worker that was not stopped: it hangs


def make(rng: random.Random) -> tuple[np.ndarray, int]:
    """A new shared array of random size, often small, with a pattern and its checksum."""
    nbytes = int(2 ** rng.uniform(0, 23 if rng.random() < 0.1 else 16))
    a = sharedmem.empty(nbytes, np.uint8, populate=rng.choice([None, None, False]))
    a[:] = np.frombuffer(rng.randbytes(min(nbytes, 64)), np.uint8).repeat(-(-nbytes // min(nbytes, 64)))[
        :nbytes
    ]
    return a, zlib.crc32(a)


def sound(a: np.ndarray, checksum: int) -> bool:
    return sharedmem.is_shared(a) and zlib.crc32(np.ascontiguousarray(a)) == checksum


def fork_briefly(rng: random.Random, kept: list) -> None:
    """A child by plain os.fork, which uses what it inherited, makes its own, and ends in some way."""
    pid = os.fork()
    if pid == 0:
        code = 0 if all(sound(*item) for item in kept[-3:]) else 1
        own = [make(rng) for _ in range(rng.randrange(4))]
        if rng.random() < 0.3:
            kept.clear()
        if rng.random() < 0.3:
            os.kill(os.getpid(), signal.SIGKILL)
        del own
        os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise AssertionError("a forked child found an inherited array altered")


def work(seed: int, link: Connection) -> None:
    """A worker: until told to stop, or killed."""
    rng = random.Random(seed)
    kept: list = []
    while True:
        while link.poll(0):
            message = link.recv()
            if message is None:
                link.send(("done", None))
                return
            if not sound(*message):
                link.send(("wrong", message[1]))
            if rng.random() < 0.5:
                kept.append(message)
        act = rng.random()
        if act < 0.6:
            item = make(rng)
            link.send(("array", item))
            if rng.random() < 0.3:
                kept.append(item)
            del item
        elif act < 0.62:
            fork_briefly(rng, kept)
        elif act < 0.7 and kept:
            view = kept[-1][0][:: rng.choice([1, 2, -1])]
            link.send(("array", (view, zlib.crc32(np.ascontiguousarray(view)))))
        elif act < 0.71:
            sharedmem.collect()
        elif act < 0.72:
            sharedmem.cleanup()
        else:
            link.send(("alive", None))
        del kept[: max(0, len(kept) - rng.randrange(1, 40))]
        time.sleep(rng.random() * 0.002)


class Controller:
    """Starts workers, passes arrays between them, kills them."""

    def __init__(self, processes: int, seed: int):
        self.rng = random.Random(seed)
        self.workers: dict[Connection, tuple] = {}
        self.heard: dict[Connection, float] = {}
        self.pool: list = []
        self.counts = dict.fromkeys(("kills", "arrays", "bytes", "passed on", "stopped and continued"), 0)
        self.failures: list[str] = []
        for _ in range(processes):
            self.start()

    def start(self) -> None:
        context = multiprocessing.get_context(self.rng.choice(START_METHODS))
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(self.rng.randrange(2**32), theirs), daemon=True)
        process.start()
        theirs.close()
        self.workers[ours] = (process,)
        self.heard[ours] = time.monotonic()

    def forget(self, link: Connection) -> None:
        (process,) = self.workers.pop(link)
        del self.heard[link]
        process.join(PATIENCE)
        if process.is_alive():
            self.failures.append(f"process {process.pid} did not end")
            process.kill()
        link.close()
        process.close()

    def kill_one(self) -> None:
        link = self.rng.choice(list(self.workers))
        (process,) = self.workers[link]
        if self.rng.random() < 0.1:  # a stopped process is not a dead one
            os.kill(process.pid, signal.SIGSTOP)
            sharedmem.collect()
            os.kill(process.pid, signal.SIGCONT)
            self.counts["stopped and continued"] += 1
            return
        os.kill(process.pid, signal.SIGKILL)
        self.counts["kills"] += 1
        # What was in the pipe when it died must arrive all the same.
        with contextlib.suppress(EOFError, ConnectionError):
            while link.poll(0.2):
                self.receive(link)
        self.forget(link)
        self.start()

    def receive(self, link: Connection) -> str:
        what, item = link.recv()
        self.heard[link] = time.monotonic()
        if what == "wrong":
            self.failures.append(f"a worker received an array whose checksum is not {item}")
        if what == "array":
            if not sound(*item):
                self.failures.append("an array arrived altered")
            self.counts["arrays"] += 1
            self.counts["bytes"] += item[0].nbytes
            self.pool.append(item)
        return what

    def pass_on(self) -> None:
        link = self.rng.choice(list(self.workers))
        with contextlib.suppress(BrokenPipeError, ConnectionError):
            link.send(self.rng.choice(self.pool))
            self.counts["passed on"] += 1

    def run(self, seconds: float, report: float = 10.0) -> None:
        end = time.monotonic() + seconds
        next_kill = next_report = time.monotonic()
        while (now := time.monotonic()) < end and not self.failures:
            for link in wait(list(self.workers), timeout=0.01):
                try:
                    self.receive(link)
                except (EOFError, ConnectionError) as gone:
                    self.failures.append(f"a worker ended by itself: {gone!r}")
                    return
            if self.pool and self.rng.random() < 0.5:
                self.pass_on()
            del self.pool[: max(0, len(self.pool) - 100)]
            if now >= next_kill:
                self.kill_one()
                next_kill = now + self.rng.random() * 0.2
            for link, heard in self.heard.items():
                if now - heard > PATIENCE:
                    self.failures.append(f"process {self.workers[link][0].pid} hangs")
            if now >= next_report:
                next_report = now + report
                print(f"{end - now:6.0f} s left: {self.counts}", flush=True)

    def stop(self) -> None:
        for link in list(self.workers):
            with contextlib.suppress(BrokenPipeError, EOFError, ConnectionError):
                link.send(None)
                while link.poll(PATIENCE) and self.receive(link) != "done":
                    pass
            self.forget(link)
        self.pool.clear()


def left_behind(before: dict) -> list[str]:
    """What there is more of than before, after all that can be taken back was."""
    sharedmem.collect()
    sharedmem.revoke(older_than=0)  # passed on to workers that were killed before they read it
    sharedmem.collect(leases=True)
    sharedmem.cleanup()
    after = sharedmem.stats()
    return [
        f"{key}: {before.get(key)} before, {after.get(key)} after"
        for key in ("live_blocks", "leases", "participants", "shared_blocks", "cached_bytes")
        if after.get(key, 0) > before.get(key, 0)
    ]


def verdict(before: dict, failures: list[str]) -> list[str]:
    """What is left behind, now that every worker is gone and every array dropped.

    What killed workers had forked may still be on its way to its end.
    """
    end = time.monotonic() + PATIENCE
    while (left := left_behind(before)) and time.monotonic() < end:
        time.sleep(0.05)
    return [*failures, *left]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--processes", type=int, default=6)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}, {options.processes} processes, {options.minutes} minutes", flush=True)
    sharedmem.empty(1)
    sharedmem.cleanup()
    before = sharedmem.stats()
    controller = Controller(options.processes, options.seed)
    try:
        controller.run(options.minutes * 60)
    finally:
        controller.stop()
    forkserver._forkserver._stop()  # the fork server is a participant too
    failures = verdict(before, controller.failures)
    print(", ".join(f"{count} {name}" for name, count in controller.counts.items()))
    for failure in failures:
        print("FAILED:", failure)
    print(f"{0 if failures else 1} passed, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
