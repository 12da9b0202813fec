"""A Dask cluster in two places, killed at random: ``python -m tests.chaos_dask --minutes 10``.

Workers of little memory, which spill nearly all they have, some of them under nannies, and two programs that
use them; one program and some of the workers are in an IPC namespace of their own, which stands for a second
host. The controller kills and stops workers, nannies and programs, and starts others in their place. Every
half a minute it leaves all in peace, and sees whether what is left goes.

checked
    Objects that were compared with what they must be, by checksum, in tasks and in programs.
lost
    Tasks whose arguments had been sent to a worker that was killed, and so are lost as Dask says; rechunks by
    p2p that Dask gave up since a worker had been killed.
stale, wrong, failed, hung
    Tasks and transfers that found memory gone, that had other values, that failed in other ways, or that did
    not end within minutes.
left
    Processes that keep arrays or leases which nobody wants, segments that nobody has attached, and processes
    that should have ended.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

TESTS = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, TESTS)

import chaos_dask_left  # noqa: E402
import chaos_dask_work as work  # noqa: E402
import dask_cluster  # noqa: E402
from support import MARK, environment, marked  # noqa: E402

ROUND = 30.0  # seconds between two times of peace
ENOUGH = 4  # workers of five that must be there before one is killed
PAUSE = 1.5  # seconds between two kills, on average
GRACE = 2.0  # seconds after the end of a connection in which it may still be read
MEMORY = 600 << 20  # bytes of a worker, of which it spills what is above a hundredth

BAD = ("stale", "wrong", "failed", "hung", "left")
COUNTS = ("workers killed", "nannies killed", "programs killed", "stopped", "checked", "lost", *BAD)

WORKER = f"""
import sharedmem._engines.dask_parcels as parcels
parcels.GRACE = {GRACE}
"""

# Its worker belongs to nobody else: the nanny starts another one when it is killed.
NANNY = """
import asyncio, sys
import distributed
async def main():
    nanny = distributed.Nanny(sys.argv[1], name=sys.argv[2], nthreads=2, host="127.0.0.1",
                              memory_limit=sys.argv[3], local_directory=sys.argv[4], dashboard=False,
                              preload=[sys.argv[5]])
    async with nanny:
        print(nanny.address, flush=True)
        await nanny.finished()
if __name__ == "__main__":
    asyncio.run(main())
"""


def children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                found += map(int, file.read().split())
    return found


def is_worker(pid: int) -> bool:
    """Whether a child of a nanny is its worker, and not the tracker of resources."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return b"spawn_main" in file.read()
    return False


class Place:
    """Where processes are: here, or in an IPC namespace that lives as long as this object."""

    def __init__(self, apart: bool) -> None:
        self.prefix: list[str] = []
        self.holder = None
        self.pid = 0
        if apart:
            self.holder = subprocess.Popen(["unshare", "--ipc", "sleep", "infinity"])
            self.pid = self.holder.pid
            here = os.stat("/proc/self/ns/ipc").st_ino
            while os.stat(f"/proc/{self.pid}/ns/ipc").st_ino == here:
                time.sleep(0.01)
            self.prefix = ["nsenter", f"--ipc=/proc/{self.pid}/ns/ipc"]

    def segments(self) -> set[str]:
        table = subprocess.run([*self.prefix, "cat", "/proc/sysvipc/shm"], stdout=subprocess.PIPE, check=True)
        return {line.split()[1].decode() for line in table.stdout.splitlines()[1:]}

    def close(self) -> None:
        if self.holder is not None:
            self.holder.kill()
            self.holder.wait()


class Process:
    """A worker, a nanny with its worker, or a program that uses the cluster."""

    def __init__(self, kind: str, place: Place, command: list[str], log: Any) -> None:
        self.kind, self.place = kind, place
        self.popen = subprocess.Popen(
            [*place.prefix, sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment(related=False, DASK_DISTRIBUTED__WORKER__MEMORY__TARGET="0.01"),
        )
        self.text = b""
        os.set_blocking(self.popen.stdout.fileno(), False)
        self.lines: list[str] = []
        self.ready = False
        self.stopped: tuple[int, float] | None = None  # the process, and until when

    def listen(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while more := os.read(self.popen.stdout.fileno(), 1 << 16):
                self.text += more
        *lines, self.text = self.text.split(b"\n")
        self.lines += [line.decode() for line in lines]
        if not self.ready and self.lines:
            self.ready = True
            self.lines.pop(0)

    def victim(self) -> int | None:
        """The process that does the work; None: it is not there yet."""
        if self.kind != "nanny":
            return self.popen.pid
        return next(filter(is_worker, children(self.popen.pid)), None)

    def resume(self) -> None:
        if self.stopped is not None:
            with contextlib.suppress(OSError):
                os.kill(self.stopped[0], signal.SIGCONT)
            self.stopped = None

    def end(self, number: int = signal.SIGKILL) -> None:
        self.resume()
        self.popen.send_signal(number)
        try:
            self.popen.wait(60)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self.popen.stdin.close()
        self.popen.stdout.close()


class Controller:
    """Starts processes, kills them, and adds up what they say."""

    def __init__(self, seed: int, folder: str, places: list[Place], protocol: str, rechunk: str) -> None:
        import distributed

        self.rng = random.Random(seed)
        self.folder = folder
        self.places = places
        self.protocol = protocol
        self.rechunk = rechunk
        self.started = 0
        self.counts: Counter[str] = Counter()
        self.told: list[str] = []
        self.log = open(os.path.join(folder, "log"), "ab")  # noqa: SIM115 - until `close`
        with open(os.path.join(folder, "chaos_grace.py"), "w") as file:
            file.write(WORKER)
        os.environ["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] = "100000"
        self.cluster = dask_cluster.Cluster(protocol, WORKER)
        here, there = places[0], places[-1]
        where = [("worker", here), ("worker", here), ("nanny", here), ("worker", there), ("nanny", there)]
        where += [("user", here), ("user", there)]
        self.processes = [self.start(kind, place) for kind, place in where]
        self.client = distributed.Client(self.cluster.address, timeout=work.PATIENCE, set_as_default=False)

    def start(self, kind: str, place: Place) -> Process:
        self.started += 1
        name = f"{kind}-{self.started}"
        if kind == "user":
            script = os.path.join(TESTS, "chaos_dask_work.py")
            command = [script, self.cluster.address, str(self.rng.randrange(2**32)), self.rechunk]
            return Process(kind, place, command, self.log)
        directory = os.path.join(self.folder, name)
        os.mkdir(directory)
        arguments = [self.cluster.address, name, str(MEMORY), directory]
        if kind == "nanny":
            script = os.path.join(directory, "nanny.py")
            with open(script, "w") as file:
                file.write(NANNY)
            grace = os.path.join(self.folder, "chaos_grace.py")
            return Process(kind, place, [script, *arguments, grace], self.log)
        code = dask_cluster.filled(dask_cluster.WORKER, WORKER)
        return Process(kind, place, ["-c", code, *arguments], self.log)

    # -- what is done to them

    def listen(self) -> None:
        now = time.monotonic()
        for each in self.processes:
            each.listen()
            if each.stopped is not None and each.stopped[1] <= now:
                each.resume()
            if each.popen.poll() is not None:
                self.bad("failed", f"a {each.kind} ended by itself: {each.popen.returncode}")
                self.replace(each, "")

    def replace(self, process: Process, count: str) -> None:
        if count:
            self.counts[count] += 1
        process.end()
        self.processes[self.processes.index(process)] = self.start(process.kind, process.place)

    def strike(self) -> None:
        """Kills or stops somebody, if enough others are there: else nothing but starting would be tested."""
        if self.client.run_on_scheduler(work.count_workers) < ENOUGH:
            return
        ready = [each for each in self.processes if each.ready and each.kind != "user"]
        chance = self.rng.random()
        if chance < 0.05:
            users = [each for each in self.processes if each.ready and each.kind == "user"]
            if len(users) > 1:
                self.replace(self.rng.choice(users), "programs killed")
        elif ready:
            process = self.rng.choice(ready)
            pid = process.victim()
            if pid is None or process.stopped is not None:
                return
            if chance < 0.2:
                os.kill(pid, signal.SIGSTOP)
                process.stopped = pid, time.monotonic() + self.rng.random() * 2 * GRACE
                self.counts["stopped"] += 1
            elif process.kind == "nanny" and chance < 0.9:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.counts["workers killed"] += 1
            elif process.kind == "nanny":
                self.replace(process, "nannies killed")
            else:
                self.replace(process, "workers killed")

    def bad(self, what: str, why: str) -> None:
        self.counts[what] += 1
        self.told.append(f"{what}: {why}")

    # -- a round

    def wait(self, condition: Callable[[], bool], seconds: float = 2 * work.PATIENCE) -> bool:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            self.listen()
            time.sleep(0.01)
        return True

    def users(self) -> list[Process]:
        return [each for each in self.processes if each.kind == "user"]

    def round(self, seconds: float) -> None:
        """Work and kills for some seconds, then peace until nothing is left."""
        if not self.wait(lambda: all(each.ready for each in self.processes)):
            self.bad("hung", f"not ready: {[each.kind for each in self.processes if not each.ready]}")
            return
        asked = self.users()
        for user in asked:
            user.popen.stdin.write(f"{seconds}\n".encode())
            user.popen.stdin.flush()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.wait(lambda: time.monotonic() >= end, self.rng.random() * 2 * PAUSE)
            self.strike()
        for each in self.processes:
            each.resume()
        alive = [user for user in asked if user in self.processes]
        if not self.wait(lambda: all(user.lines for user in alive)):
            known = self.client.run_on_scheduler(work.tasks)
            self.bad("hung", "\n".join(["a program did not end its work", *known]))
        for user in alive:
            if user.lines:
                said = json.loads(user.lines.pop(0))
                self.told += said.pop("told")
                self.counts.update(said)
        self.settle()

    def settle(self) -> None:
        """Wait until nothing is left anywhere."""
        found: dict[str, dict[str, int]] = {}

        def settled() -> bool:
            found.clear()
            with contextlib.suppress(Exception):  # a worker that was killed, or is just starting
                if self.protocol != "sharedmem":
                    self.client.run(work.forget_failures)
                found.update(self.client.run(work.look))
                found["scheduler"] = self.client.run_on_scheduler(work.look)
                found["controller"] = work.look()
            return "controller" in found and all(
                each["bytes"] < 100_000 and each["leases"] == each["loose"] == 0 for each in found.values()
            )

        if not self.wait(settled, work.PATIENCE):
            known = self.client.run_on_scheduler(work.tasks)
            self.bad("left", "\n".join([str(found), *known, *self.holders()]))
        for name in ("handles", "opened", "spilled"):
            self.counts[name] += sum(each[name] for each in found.values())

    def holders(self) -> list[str]:
        """What keeps arrays, process by process."""
        found = self.client.run(chaos_dask_left.holders, on_error="ignore")
        found["scheduler"] = self.client.run_on_scheduler(chaos_dask_left.holders)
        found["controller"] = chaos_dask_left.holders()
        return [f"{name}: {each}" for name, said in found.items() for each in said]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.client.close()
        for each in self.users():
            each.end()
        for each in self.processes:
            if each.kind != "user":
                each.end(signal.SIGTERM if each.kind == "nanny" else signal.SIGKILL)
        self.cluster.close()
        self.log.close()


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit status says whether all went well."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos_dask",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    parser.add_argument("--protocol", default="sharedmem", help="tcp: what becomes of the same without it")
    parser.add_argument(
        "--rechunk",
        choices=("tasks", "p2p"),
        default="tasks",
        help="how Dask rechunks; a rechunk by p2p did not end once, under a load of 50",
    )
    parser.add_argument("--log", help="a file for what workers and programs write to stderr")
    options = parser.parse_args(arguments)
    mark = f"chaos {os.getpid()}"
    os.environ[MARK] = mark
    places = [Place(False)]
    if os.geteuid() == 0 and subprocess.run(["unshare", "--ipc", "true"], check=False).returncode == 0:
        places.append(Place(True))
    print(f"seed {options.seed}, {options.minutes} minutes, {len(places)} places", flush=True)
    before = [place.segments() for place in places]
    with tempfile.TemporaryDirectory() as folder:
        controller = Controller(options.seed, folder, places, options.protocol, options.rechunk)
        try:
            end = time.monotonic() + 60 * options.minutes
            while (more := end - time.monotonic()) > 0 and not any(controller.counts[each] for each in BAD):
                controller.round(min(more, ROUND))
                print(f"{max(0, more):6.0f} s left: {dict(controller.counts)}", flush=True)
        finally:
            controller.close()
            if options.log:
                with open(os.path.join(folder, "log"), "rb") as log, open(options.log, "wb") as kept:
                    kept.write(log.read())
    for what in (
        lambda: [pid for pid in marked(mark) if pid not in (os.getpid(), *(p.pid for p in places))],
        lambda: [each for p, b in zip(places, before, strict=True) for each in p.segments() - b],
    ):
        end = time.monotonic() + 60
        while (found := what()) and time.monotonic() < end:
            time.sleep(0.1)
        controller.counts["left"] += len(found)
        controller.told += [f"left: {each}" for each in found]
    for place in places:
        place.close()
    counts, told = controller.counts, controller.told
    print(", ".join(f"{counts[name]} {name}" for name in (*COUNTS, "spilled", "handles", "opened")))
    for each in told:
        print("FAILED:", each)
    nothing = not counts["checked"] or (options.protocol == "sharedmem" and not counts["opened"])
    return int(any(counts[name] for name in BAD) or nothing)


if __name__ == "__main__":
    sys.exit(main())
