"""Processes that share arrays and are killed at random: ``python -m tests.chaos --minutes 2``.

Workers allocate, write patterns, send, receive, fork and drop, make arenas of their own and replace
themselves by another program; the controller passes arrays between them, stops and continues them, lets
some end at the same moment, kills one every few milliseconds with SIGKILL and starts another. The arena is
so small that it has to grow. Every array travels with its checksum. At the end nothing may be lost, leaked or
hung, and the counts are printed.

One loss is allowed: what a killed process had sent goes with it if it lay in memory that no other process
had attached, that is, in an arena of its own or in a segment that it had just added.
"""

import argparse
import contextlib
import json
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
LAST_ARRAYS = 3  # that each process sends before it ends
# How often workers and the controller do what is rare: of all acts of a worker, of all kills.
RARE = {"new_arena": 0.001, "exec": 0.001, "stop": 0.1, "end": 0.15}


def make(rng: random.Random) -> tuple[np.ndarray, int]:
    """A new shared array of random size, often small, with a pattern and its checksum."""
    # A small arena has few block descriptors, and tiny arrays would use them up.
    smallest = 9 if os.environ.get("SHAREDMEM_ARENA_SIZE") else 0
    nbytes = int(2 ** rng.uniform(smallest, 23 if rng.random() < 0.1 else 16))
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


def exec_in_place(seed: int, link: Connection, rare: dict[str, float]) -> None:
    """Becomes a new interpreter that goes on as a worker with the same pid and link."""
    os.set_inheritable(link.fileno(), True)
    code = "import sys; sys.path[:0] = {}; from tests import chaos; chaos.work({}, chaos.Connection({}), {})"
    code = code.format(json.dumps(sys.path), seed, link.fileno(), json.dumps(rare))
    os.execv(sys.executable, [sys.executable, "-c", code])


def say_goodbye(rng: random.Random, link: Connection) -> None:
    """The last arrays of a process that ends in order, perhaps at the same moment as its child."""
    processes = rng.choice([1, 2])
    link.send(("ends", processes))
    if processes == 2 and os.fork() == 0:
        rng.seed(rng.random())
    for _ in range(LAST_ARRAYS):
        link.send(("array", make(rng)))
    link.send(("done", None))


def work(seed: int, link: Connection, rare: dict[str, float]) -> None:
    """A worker: until told to stop, or killed."""
    rng = random.Random(seed)
    kept: list = []
    own_arena = False
    while True:
        while link.poll(0):
            message = link.recv()
            if message is None:
                say_goodbye(rng, link)
                return
            if not sound(*message):
                link.send(("wrong", message[1]))
            if rng.random() < 0.5:
                kept.append(message)
        if rng.random() < rare["exec"]:
            link.send(("replaced themselves", None))
            exec_in_place(rng.randrange(2**32), link, rare)
        if not own_arena and rng.random() < rare["new_arena"]:
            own_arena = True
            link.send(("made an arena", None))
            sharedmem.new_arena()
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

    def __init__(self, processes: int, seed: int, rare: dict[str, float]):
        self.rng = random.Random(seed)
        self.rare = rare
        self.stopped: dict[Connection, float] = {}  # until when
        self.workers: dict[Connection, tuple] = {}
        self.heard: dict[Connection, float] = {}
        self.pool: list = []
        names = (
            "kills",
            "arrays",
            "bytes",
            "passed on",
            "stopped",
            "ended in order",
            "gone with their process",
        )
        self.counts = dict.fromkeys((*names, "replaced themselves", "made an arena"), 0)
        self.failures: list[str] = []
        for _ in range(processes):
            self.start()

    def start(self) -> None:
        context = multiprocessing.get_context(self.rng.choice(START_METHODS))
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(self.rng.randrange(2**32), theirs, self.rare))
        process.start()
        theirs.close()
        self.workers[ours] = (process,)
        self.heard[ours] = time.monotonic()

    def forget(self, link: Connection) -> None:
        (process,) = self.workers.pop(link)
        del self.heard[link]
        self.stopped.pop(link, None)
        process.join(PATIENCE)
        if process.is_alive():
            self.failures.append(f"process {process.pid} did not end")
            process.kill()
        link.close()
        process.close()

    def disturb(self) -> None:
        link = self.rng.choice(list(self.workers))
        if self.rng.random() < self.rare["stop"]:
            self.stop_for_a_while(link)
        elif self.rng.random() < self.rare["end"]:
            self.end([link, *self.rng.sample([other for other in self.workers if other != link], 1)])
        else:
            self.kill(link)

    def stop_for_a_while(self, link: Connection) -> None:
        """A stopped process is not a dead one, whatever it was about to do."""
        if link not in self.stopped:
            os.kill(self.workers[link][0].pid, signal.SIGSTOP)
            self.stopped[link] = time.monotonic() + self.rng.random() * 2
            self.counts["stopped"] += 1
            sharedmem.collect()

    def continue_stopped(self, now: float) -> None:
        for link, until in list(self.stopped.items()):
            if now >= until:
                os.kill(self.workers[link][0].pid, signal.SIGCONT)
                self.heard[link] = now
                del self.stopped[link]

    def kill(self, link: Connection) -> None:
        os.kill(self.workers[link][0].pid, signal.SIGKILL)
        self.counts["kills"] += 1
        # What was in the pipe when it died must still arrive.
        with contextlib.suppress(EOFError, ConnectionError):
            while link.poll(0.2):
                self.receive(link, killed=True)
        self.forget(link)
        self.start()

    def end(self, links: list[Connection]) -> None:
        """Lets workers end in order at the same moment; all that they sent arrives after they have gone."""
        self.continue_stopped(float("inf"))
        for link in links:
            with contextlib.suppress(BrokenPipeError, ConnectionError):
                link.send(None)
        for link in links:
            process, left, arrays = self.workers[link][0], 1, 0
            if not self.last_word(link):
                continue
            process.join(PATIENCE)
            with contextlib.suppress(EOFError, ConnectionError):
                left = self.processes_that_end
                while link.poll(PATIENCE):
                    what = self.receive(link)
                    arrays += what == "array"
                    left -= what == "done"
            if left or arrays < LAST_ARRAYS:
                self.failures.append(
                    f"a worker that ended in order sent {arrays} arrays, {left} words are missing"
                )
            self.counts["ended in order"] += 1
            self.forget(link)
            self.start()

    def last_word(self, link: Connection) -> bool:
        """Reads until a worker says that it ends. False: it said no such thing."""
        with contextlib.suppress(EOFError, ConnectionError):
            while link.poll(PATIENCE):
                if self.receive(link) == "ends":
                    return True
        self.failures.append("a worker that was told to end did not say so")
        return False

    def receive(self, link: Connection, killed: bool = False) -> str:
        try:
            what, item = link.recv()
        except sharedmem.StaleHandleError as stale:
            if not killed or "has been freed" in str(stale):
                self.failures.append(f"an array is lost: {stale}")
            self.counts["gone with their process"] += 1
            return "lost"
        self.heard[link] = time.monotonic()
        if what in self.counts:
            self.counts[what] += 1
        if what == "ends":
            self.processes_that_end = item
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
            self.continue_stopped(now)
            if now >= next_kill:
                self.disturb()
                next_kill = now + self.rng.random() * 0.2
            for link, heard in self.heard.items():
                if now - heard > PATIENCE and link not in self.stopped:
                    self.failures.append(f"process {self.workers[link][0].pid} hangs")
            if now >= next_report:
                next_report = now + report
                print(f"{end - now:6.0f} s left: {self.counts}", flush=True)

    def stop(self) -> None:
        self.continue_stopped(float("inf"))
        for link in list(self.workers):
            with contextlib.suppress(BrokenPipeError, EOFError, ConnectionError):
                link.send(None)
                while link.poll(PATIENCE):
                    self.receive(link)
            self.forget(link)
        self.pool.clear()


def others_segments() -> int:
    """System V segments of this user that this process does not map."""
    with open("/proc/sysvipc/shm") as table, open("/proc/self/maps") as maps:
        next(table)
        rows = [line.split() for line in table]
        mine = {line.split()[4] for line in maps if "/SYSV" in line}
    return sum(int(row[9]) == os.geteuid() and row[1] not in mine for row in rows)


def counts() -> dict:
    return {**sharedmem.stats(), "other arenas": others_segments()}


def left_behind(before: dict) -> list[str]:
    """What there is more of than before, after everything reclaimable was reclaimed."""
    sharedmem.collect()
    sharedmem.revoke(older_than=0)  # passed on to workers that were killed before they read it
    sharedmem.collect(leases=True)
    sharedmem.cleanup()
    after = counts()
    return [
        f"{key}: {before.get(key)} before, {after.get(key)} after"
        for key in ("live_blocks", "leases", "participants", "shared_blocks", "cached_bytes", "other arenas")
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
    parser.add_argument(
        "--arena-size",
        default="64MiB",
        help="of the first segment; empty: the default size and arrays of any size",
    )
    for name, rate in RARE.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=rate, help="0: never")
    options = parser.parse_args(arguments)
    rare = {name: getattr(options, name) for name in RARE}
    print(f"seed {options.seed}, {options.processes} processes, {options.minutes} minutes", flush=True)
    if options.arena_size:
        os.environ["SHAREDMEM_ARENA_SIZE"] = options.arena_size
    sharedmem.new_arena()
    sharedmem.empty(1)
    sharedmem.cleanup()
    before = counts()
    controller = Controller(options.processes, options.seed, rare)
    try:
        controller.run(options.minutes * 60)
    finally:
        controller.stop()
    forkserver._forkserver._stop()  # the fork server is a participant too
    failures = verdict(before, controller.failures)
    print(", ".join(f"{count} {name}" for name, count in controller.counts.items()))
    print(f"the arena grew to {sharedmem.stats()['segments']} segments")
    for failure in failures:
        print("FAILED:", failure)
    print(f"{0 if failures else 1} passed, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
