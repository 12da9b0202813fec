"""Processes that meet by names and are killed at random: ``python -m tests.chaos_names --minutes 2``.

Workers use a few names: they create, attach, unlink, build, fail to build, fork and drop, own locks and
conditions and set events by name; the controller stops, continues and kills them, most often those that build
or own a lock. Of each name at most one builder may be at work, no array may be found half made, a lock has at
most one owner, no process may hang, and when all have ended nothing may be left.
"""

import argparse
import contextlib
import fcntl
import json
import logging
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from multiprocessing.connection import Connection

import numpy as np

import sharedmem

NAMES = 5
PATIENCE = 60.0  # seconds without a word from a worker that was not stopped: it hangs
LOCKS = ("RLock", "Lock", "Condition")  # each is the name of one of its class
ITEMS = (10, 300, 5_000, 300_000)  # of 8 bytes: small blocks, and one of several pages


link: Connection  # of a worker to the controller


class Failed(Exception):
    """What a builder raises on purpose."""


def pattern(rng: random.Random, a: np.ndarray) -> np.ndarray:
    """Fills an array so that it can be recognised as complete."""
    a[1:] = rng.getrandbits(60) + np.arange(len(a) - 1)
    a[0] = zlib.crc32(a[1:])
    return a


def complete(a: np.ndarray) -> bool:
    return len(a) in ITEMS and int(a[0]) == zlib.crc32(np.ascontiguousarray(a[1:]))


def runs(pid: int) -> bool:
    """Whether a process may still do something: one that is being killed closes its files last of all."""
    exiting = 4  # PF_EXITING, linux/sched.h
    try:
        with open(f"/proc/{pid}/stat") as record:
            fields = record.read().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] not in "ZX" and not int(fields[6]) & exiting


def build(rng: random.Random, folder: str, name: str) -> np.ndarray:
    """What one process at a time does: the kernel gives the lock back when that is killed."""
    lock = os.open(os.path.join(folder, name), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if runs(int(os.pread(lock, 20, 0) or b"0")):
                say("wrong", "two build at once")
            fcntl.flock(lock, fcntl.LOCK_EX)
        os.pwrite(lock, b"%20d" % os.getpid(), 0)
        say("built")
        time.sleep(rng.random() * 0.02)
        if rng.random() < 0.1:
            raise Failed
        if rng.random() < 0.05:
            raise KeyboardInterrupt
        where = sharedmem if rng.random() < 0.7 else np
        return pattern(rng, where.empty(rng.choice(ITEMS), np.int64))
    finally:
        os.close(lock)


def cell(folder: str, name: str) -> int:
    """The process that says it owns a lock; 0: none does."""
    with contextlib.suppress(FileNotFoundError), open(os.path.join(folder, name)) as file:
        return int(file.read() or "0")
    return 0


def own(rng: random.Random, folder: str, kind: str, opened: dict[str, object]) -> None:
    """Owns a lock that has a name for a moment, and records this in a file that no other writes then."""
    lock = opened.get(kind) or getattr(sharedmem, kind)(name=kind)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if not (lock.acquire() if rng.random() < 0.5 else lock.acquire(True, rng.random())):
            return
    try:
        before = cell(folder, kind)
        if before and runs(before):
            say("wrong", f"two own {kind} at once: {before} and {os.getpid()}")
        say("handed on" if told else "owned")
        with open(os.path.join(folder, kind), "w") as file:
            file.write(str(os.getpid()))
        time.sleep(rng.random() * 0.01)
        if cell(folder, kind) != os.getpid():
            say("wrong", f"{cell(folder, kind)} took {kind} from {os.getpid()}")
        os.truncate(os.path.join(folder, kind), 0)
        if kind == "Condition":
            with warnings.catch_warnings():  # another owner may die meanwhile
                warnings.simplefilter("ignore", RuntimeWarning)
                lock.notify_all() if rng.random() < 0.5 else lock.wait(rng.random() * 0.05)
    finally:
        lock.release()
    if rng.random() < 0.5:
        opened[kind] = lock
    else:
        opened.pop(kind, None)


def signal_event(rng: random.Random, opened: dict[str, object]) -> None:
    """Sets, clears or waits for an event by its name."""
    event = opened.setdefault("Event", sharedmem.Event(name="Event"))
    rng.choice((event.set, event.clear, event.is_set, lambda: event.wait(rng.random() * 0.05)))()
    if rng.random() < 0.2:
        del opened["Event"]


def act(rng: random.Random, folder: str, name: str, kept: dict[str, np.ndarray]) -> None:
    chance = rng.random()
    if chance < 0.5:
        try:
            readonly = rng.random() < 0.5
            a = sharedmem.get_or_create(name, lambda: build(rng, folder, name), readonly=readonly)
        except sharedmem.BuildError:
            say("heard")
            return
        except (Failed, KeyboardInterrupt):
            return
        if not complete(a):
            say("wrong", f"{name} is half made")
        if rng.random() < 0.7:
            kept[name] = a
    elif chance < 0.8:
        with contextlib.suppress(FileNotFoundError):
            a = sharedmem.attach(name, readonly=rng.random() < 0.5)
            say("attached")
            # `create` binds zeros, which its creator fills.
            if not complete(a) and not name.startswith("created"):
                say("wrong", f"{name} is half made")
            kept[name] = a
    elif chance < 0.85:
        with contextlib.suppress(FileExistsError):
            kept["created"] = sharedmem.create(f"created {rng.randrange(NAMES)}", 100)
            say("created")
    elif chance < 0.88:
        with contextlib.suppress(OSError):
            sharedmem.unlink(name, missing_ok=True)
            say("unlinked")
    elif chance < 0.9:
        if (pid := os.fork()) == 0:
            os._exit(0 if all(complete(a) for key, a in kept.items() if key != "created") else 1)
        if os.waitpid(pid, 0)[1] != 0:
            say("wrong", "a forked child found an array altered")
    elif chance < 0.92:
        sharedmem.names()
    else:
        kept.pop(rng.choice([*kept, ""]), None)


def say(what: str, why: str = "") -> None:
    link.send((what, why))


def work(seed: int, folder: str, to: Connection) -> None:
    """A worker: until it is killed."""
    global link
    link = to
    logging.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    rng = random.Random(seed)
    kept: dict[str, np.ndarray] = {}
    parent = os.getppid()
    opened: dict[str, object] = {}
    while os.getppid() == parent:
        chance = rng.random()
        if chance < 0.15:
            own(rng, folder, rng.choice(LOCKS), opened)
        elif chance < 0.2:
            signal_event(rng, opened)
        else:
            act(rng, folder, f"name {rng.randrange(NAMES)}", kept)
        say("alive")
        time.sleep(rng.random() * 0.002)


class Controller:
    """Starts workers, listens, kills."""

    def __init__(self, processes: int, seed: int, folder: str):
        self.rng = random.Random(seed)
        self.folder = folder
        self.workers: dict[Connection, multiprocessing.process.BaseProcess] = {}
        self.heard: dict[Connection, float] = {}
        self.stopped: dict[Connection, float] = {}  # until when
        self.ready: set[Connection] = set()
        words = ("built", "heard", "attached", "created", "unlinked", "owned", "handed on")
        self.counts = dict.fromkeys(("kills", "of builders", "of owners", "stopped", *words), 0)
        self.failures: list[str] = []
        for _ in range(processes):
            self.start()

    def start(self) -> None:
        # Those that are spawned are strangers to each other; forked ones are there sooner.
        context = multiprocessing.get_context("spawn" if self.rng.random() < 0.1 else "fork")
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(self.rng.randrange(2**32), self.folder, theirs))
        process.start()
        theirs.close()
        self.workers[ours] = process
        self.heard[ours] = time.monotonic()

    def listen(self, link: Connection) -> None:
        with contextlib.suppress(EOFError, ConnectionError):
            while link.poll(0):
                what, why = link.recv()
                self.heard[link] = time.monotonic()
                self.ready.add(link)
                if what == "wrong":
                    self.failures.append(why)
                if what in self.counts:
                    self.counts[what] += 1

    def kill(self) -> None:
        builders = {info.pid for info in sharedmem.names() if info.state == "building"}
        ready = [link for link in self.workers if link in self.ready]
        owners = {cell(self.folder, kind) for kind in LOCKS}
        building = [link for link in ready if self.workers[link].pid in builders]
        owning = [link for link in ready if self.workers[link].pid in owners]
        if not ready:
            return
        first, second = (owning, building) if self.rng.random() < 0.5 else (building, owning)
        link = self.rng.choice(first or second or ready)
        self.counts["kills"] += 1
        self.counts["of builders"] += link in building
        self.counts["of owners"] += link in owning
        self.end(link)
        self.start()

    def end(self, link: Connection) -> None:
        process = self.workers.pop(link)
        if not process.is_alive():
            self.failures.append(f"a worker ended by itself: {process.exitcode}")
        process.kill()
        process.join()
        self.listen(link)
        self.stopped.pop(link, None)
        self.ready.discard(link)
        del self.heard[link]
        link.close()

    def stop_one(self, now: float) -> None:
        link = self.rng.choice(list(self.workers))
        if link not in self.stopped:
            os.kill(self.workers[link].pid, signal.SIGSTOP)
            self.stopped[link] = now + self.rng.random() * 2
            self.counts["stopped"] += 1

    def continue_some(self, now: float) -> None:
        for link, until in list(self.stopped.items()):
            if until <= now:
                os.kill(self.workers[link].pid, signal.SIGCONT)
                del self.stopped[link]
                self.heard = dict.fromkeys(self.heard, now)  # others may have waited for it

    def run(self, seconds: float, pause: float) -> None:
        end = time.monotonic() + seconds
        next_kill = next_report = time.monotonic()
        while (now := time.monotonic()) < end and not self.failures:
            for link in list(self.workers):
                self.listen(link)
            self.continue_some(now)
            if now >= next_kill:
                self.stop_one(now) if self.rng.random() < 0.1 else self.kill()
                next_kill = now + self.rng.random() * 2 * pause
            for link, heard in self.heard.items():
                if now - heard > PATIENCE and link not in self.stopped:
                    self.failures.append(f"process {self.workers[link].pid} hangs")
            if now >= next_report:
                next_report = now + 10
                print(f"{end - now:6.0f} s left: {self.counts}", flush=True)
            time.sleep(0.002)

    def finish(self) -> None:
        for link in list(self.workers):
            self.end(link)


def segments() -> list[str]:
    """System V segments that this process does not map: it keeps what it has looked into while it runs."""
    with open("/proc/sysvipc/shm") as table, open("/proc/self/maps") as maps:
        rows = [line.split() for line in list(table)[1:]]
        mine = {line.split()[4] for line in maps if "/SYSV" in line}
    return [f"segment {row[1]} of process {row[4]}" for row in rows if row[1] not in mine]


def chunks() -> list[str]:
    """Memory that the arenas of this process have not got back from others."""
    sharedmem.collect()
    told = subprocess.run(
        [sys.executable, "-m", "sharedmem", "info", "--json"], stdout=subprocess.PIPE, check=True
    ).stdout
    return [
        f"{each['bytes']} bytes of process {each['pid']}"
        for arena in json.loads(told)["arenas"]
        for each in arena.get("participants", ())
        if each["chunks"] and each["pid"] != os.getpid()
    ]


def names() -> list[str]:
    return [f"{info}" for info in sharedmem.names() if info.state != "failed"]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos_names", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between two kills, on average")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}, {options.processes} processes, {options.minutes} minutes", flush=True)
    os.environ["SHAREDMEM_NAMESPACE"] = f"chaos {os.getpid()}"
    os.environ["SHAREDMEM_ARENA_SIZE"] = "256MiB"
    sharedmem.create("first", 1)
    before = set(segments())
    with tempfile.TemporaryDirectory() as folder:
        controller = Controller(options.processes, options.seed, folder)
        try:
            controller.run(options.minutes * 60, options.pause)
        finally:
            controller.finish()
    failures = controller.failures
    for left in (names, lambda: [each for each in segments() if each not in before], chunks):
        end = time.monotonic() + PATIENCE
        while (more := left()) and time.monotonic() < end:
            time.sleep(0.05)
        failures += [f"left behind: {each}" for each in more]
    print(", ".join(f"{count} {name}" for name, count in controller.counts.items()))
    for failure in failures:
        print("FAILED:", failure)
    print(f"{0 if failures else 1} passed, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
