"""Messages whose readers are killed: ``python -m tests.chaos_messages --minutes 2 --mode duplex``.

Workers make arrays and send them. The parent passes the messages on, as the bytes that they are, to other
workers, and kills workers with SIGKILL while unread messages lie before them. Every array travels with a
number and its checksum. At the end every message that was given to a worker that still lived has arrived
sound, memory did not grow while messages died with their readers, and the survivors continue to work.
Messages in flight do not count: those of the dead are kept until memory would be refused (doc/promises.rst).

Modes: ``pipe`` and ``duplex`` have one ``Pipe`` for each worker (``duplex=False`` twice, or ``True``);
``queue`` two queues for each worker; in ``pool`` and ``executor`` tasks kill their worker, and pools are
thrown away with tasks unread.
"""

import argparse
import concurrent.futures.process
import contextlib
import multiprocessing
import os
import random
import select
import signal
import sys
import time
import zlib
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.reduction import ForkingPickler

import numpy as np

import sharedmem

MODES = ("pipe", "duplex", "queue", "pool", "executor")
PATIENCE = 60.0  # seconds without a word from a worker that is to end: it hangs
MEAN_BYTES = 600_000
RECEIVED, STALE, ALTERED = range(3)


def make(rng: random.Random, number: int) -> tuple[int, int, np.ndarray]:
    """(number, checksum, a new shared array of random size with a pattern)."""
    a = sharedmem.empty(rng.randrange(1, 2 * MEAN_BYTES), np.uint8)
    a[:] = number % 251
    a[: 8 * (a.size // 8) : 4096] = rng.randrange(256)
    return number, zlib.crc32(a), a


def note(counts: np.ndarray, load) -> tuple[int, int, np.ndarray] | None:
    """Loads a message and counts what became of it."""
    try:
        message = load()
    except sharedmem.StaleHandleError:
        counts[STALE] += 1
        return None
    if message is not None and isinstance(message, tuple):
        counts[RECEIVED] += 1
        counts[ALTERED] += zlib.crc32(message[2]) != message[1]
    return message


def work(seed: int, counts: np.ndarray, inbox, outbox) -> None:
    """A worker of a pipe or a queue: until it is told to stop, or killed."""
    rng = random.Random(seed)
    get = inbox.recv if hasattr(inbox, "recv") else inbox.get
    put = outbox.send if hasattr(outbox, "send") else outbox.put
    has_message = inbox.poll if hasattr(inbox, "poll") else lambda: not inbox.empty()
    number = 0
    while True:
        for _ in range(rng.randrange(5)):
            if not has_message():
                break
            if note(counts, get) == "stop":
                put("stopped")
                return
        for _ in range(rng.randrange(4)):
            number += 1
            put(make(rng, number))
        time.sleep(rng.random() * 0.02)


class Worker:
    """A process with a way to it and a way back."""

    def __init__(self, mode: str, method: str, seed: int, counts: np.ndarray):
        context = multiprocessing.get_context(method)
        if mode == "queue":
            self.inbox, self.outbox = context.Queue(), context.Queue()
            ends = self.inbox, self.outbox
        elif mode == "duplex":
            self.inbox, theirs = context.Pipe()
            self.outbox = self.inbox
            ends = theirs, theirs
        else:
            reader, self.inbox = context.Pipe(duplex=False)
            self.outbox, writer = context.Pipe(duplex=False)
            ends = reader, writer
        self.mode = mode
        self.given = 0  # messages
        self.counts = counts
        counts[:] = 0
        self.process = context.Process(target=work, args=(seed, counts, *ends), daemon=True)
        self.process.start()
        if mode != "queue":
            for end in set(ends):
                end.close()

    def source(self):
        return self.outbox._reader if self.mode == "queue" else self.outbox

    def take(self):
        """A message as the bytes that it is, not loaded; a queue loads it."""
        return self.outbox.get() if self.mode == "queue" else self.source().recv_bytes()

    def ready(self) -> bool:
        """Whether a message fits: a stopped or starting worker does not stop the parent."""
        if self.mode == "queue":
            return self.inbox.qsize() < 100
        poll = select.poll()
        poll.register(self.inbox._handle, select.POLLOUT)
        return bool(poll.poll(0))

    def give(self, message) -> None:
        if self.mode == "queue":
            self.inbox.put(message)
        else:
            self.inbox.send_bytes(message)
        self.given += 1

    def load(self, message):
        return message if self.mode == "queue" else ForkingPickler.loads(message)

    def end(self) -> None:
        """Drops everything that belongs to a process that has ended."""
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            raise AssertionError(f"process {self.process.pid} did not end")
        for end in {id(x): x for x in (self.inbox, self.outbox)}.values():
            end.close()
        self.process.close()


class Chaos:
    """What all modes have in common: counts, and a look at memory now and then."""

    def __init__(self, mode: str, methods: list[str], processes: int, seed: int, memory: int):
        self.mode, self.methods, self.processes = mode, methods, processes
        self.rng = random.Random(seed)
        self.counts = dict.fromkeys(("kills", "messages", "passed on", "received"), 0)
        self.failures: list[str] = []
        self.history: list[dict] = []
        self.memory = memory
        self.started = time.monotonic()

    def look(self, now: float) -> None:
        stats = sharedmem.stats()
        self.history.append(stats)
        print(
            f"{now - self.started:6.0f} s: {self.counts}, {stats['leases']} leases, "
            f"{stats['bytes_in_flight'] >> 20} MiB in flight, {stats['mapped_bytes'] >> 20} MiB resident",
            flush=True,
        )
        beside = stats["mapped_bytes"] - stats["bytes_in_flight"]
        if beside > self.memory:
            self.failures.append(f"{beside >> 20} MiB are resident beside messages in flight: memory grows")

    def run(self, seconds: float, report: float) -> None:
        end = self.started + seconds
        next_kill = next_report = self.started
        while (now := time.monotonic()) < end and not self.failures:
            self.step()
            if now >= next_kill:
                self.kill()
                next_kill = now + 1 / self.rng.uniform(2, 15)
            if now >= next_report:
                self.look(now)
                next_report = now + report
        self.look(time.monotonic())

    def note(self, counts: np.ndarray) -> None:
        self.counts["received"] += int(counts[RECEIVED])
        if counts[STALE]:
            self.failures.append(f"{counts[STALE]} messages were lost though their reader lived")
        if counts[ALTERED]:
            self.failures.append(f"{counts[ALTERED]} messages arrived altered")


class Pipes(Chaos):
    """Modes pipe, duplex and queue."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.rows = sharedmem.zeros((self.processes, 3), np.int64)
        self.workers = [self.start(i) for i in range(self.processes)]

    def start(self, row: int) -> Worker:
        return Worker(self.mode, self.rng.choice(self.methods), self.rng.randrange(2**32), self.rows[row])

    def step(self) -> None:
        sources = {worker.source(): worker for worker in self.workers}
        for source in wait(list(sources), timeout=0.01):
            self.pass_on(sources[source].take())

    def pass_on(self, message) -> None:
        self.counts["messages"] += 1
        worker = self.rng.choice(self.workers)
        if not worker.ready():
            worker.load(message)  # bytes that are discarded without loading keep their arrays
            return
        with contextlib.suppress(ConnectionError):
            worker.give(message)
            self.counts["passed on"] += 1

    def kill(self) -> None:
        row = self.rng.randrange(len(self.workers))
        worker = self.workers[row]
        os.kill(worker.process.pid, signal.SIGKILL)
        self.counts["kills"] += 1
        worker.process.join(PATIENCE)
        # What it had sent has a living reader, this process.
        with contextlib.suppress(EOFError, ConnectionError):
            while worker.source().poll(0):
                self.pass_on(worker.take())
        self.note(worker.counts)
        worker.end()
        self.workers[row] = self.start(row)

    def finish(self) -> None:
        """Every message for a worker that is alive now must arrive."""
        for worker in self.workers:
            worker.give("stop" if self.mode == "queue" else bytes(ForkingPickler.dumps("stop")))
            end = time.monotonic() + PATIENCE
            while time.monotonic() < end and worker.process.is_alive():
                if not worker.source().poll(0.01):
                    continue
                with contextlib.suppress(EOFError, ConnectionError):
                    if worker.load(worker.take()) == "stopped":
                        break
            worker.end()
            self.note(worker.counts)
            if worker.counts[RECEIVED] != worker.given - 1:
                self.failures.append(
                    f"{worker.given - 1} messages for a worker that lived, {worker.counts[RECEIVED]} arrived"
                )
        self.workers.clear()


def task(message: tuple, deadly: bool):
    """A pool's task: checks an array and answers with another, or dies with its worker."""
    if deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    number, checksum, a = message
    return zlib.crc32(a) == checksum, make(random.Random(number), number)


class Pools(Chaos):
    """Modes pool and executor."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.number = 0
        self.pool = self.start()
        self.waiting: list = []

    def start(self):
        context = multiprocessing.get_context(self.rng.choice(self.methods))
        if self.mode == "pool":
            return context.Pool(self.processes)
        return concurrent.futures.ProcessPoolExecutor(self.processes, mp_context=context)

    def submit(self, deadly: bool):
        self.number += 1
        self.counts["messages"] += 1
        message = make(self.rng, self.number)
        if self.mode == "pool":
            return self.pool.apply_async(task, (message, deadly))
        return self.pool.submit(task, message, deadly)

    def collect(self, result) -> None:
        sound, (_, checksum, a) = result.get() if self.mode == "pool" else result.result()
        self.counts["received"] += 1
        if not sound or zlib.crc32(a) != checksum:
            self.failures.append("an array arrived altered")

    def step(self) -> None:
        with contextlib.suppress(concurrent.futures.process.BrokenProcessPool):
            while len(self.waiting) < 64:
                self.waiting.append(self.submit(False))
        time.sleep(0.002)
        done = [w for w in self.waiting if (w.ready() if self.mode == "pool" else w.done())]
        self.waiting = [w for w in self.waiting if w not in done]
        for result in done:
            try:
                self.collect(result)
            except concurrent.futures.process.BrokenProcessPool:
                pass
            except sharedmem.StaleHandleError as error:
                self.failures.append(f"a message was lost: {error}")

    def kill(self) -> None:
        with contextlib.suppress(concurrent.futures.process.BrokenProcessPool):
            self.submit(True)
            self.counts["kills"] += 1
        if self.mode == "executor" or self.rng.random() < 0.2:
            self.waiting.clear()  # some of a pool's results would never come
            if self.mode == "pool":
                self.pool.terminate()
                self.pool.join()
            else:
                time.sleep(self.rng.random() * 0.1)
                self.pool.shutdown(cancel_futures=True)
            self.pool = self.start()

    def finish(self) -> None:
        self.waiting.clear()
        if self.mode == "pool":
            self.pool.terminate()
            self.pool.join()
        else:
            self.pool.shutdown(cancel_futures=True)
        self.pool = None


def left_behind(before: dict) -> list[str]:
    """What there is more of than before, once the dead have had their time."""
    sharedmem.collect(leases=True)
    sharedmem.cleanup()
    after = sharedmem.stats()
    return [
        f"{key}: {before[key]} before, {after[key]} after"
        for key in ("live_blocks", "participants")
        if after[key] > before[key]
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos_messages")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--mode", choices=MODES, default="duplex")
    parser.add_argument("--method", choices=(*multiprocessing.get_all_start_methods(), "all"), default="fork")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--memory", type=int, default=1 << 30, help="bytes that may be resident")
    parser.add_argument("--report", type=float, default=10.0, help="seconds between reports")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    options = parser.parse_args(arguments)
    print(f"mode {options.mode}, seed {options.seed}, {options.processes} processes", flush=True)
    methods = multiprocessing.get_all_start_methods() if options.method == "all" else [options.method]
    # What is resident beyond that is in use, or in slabs: each process has some of each of 40 sizes.
    sharedmem.memory_limit(cache=64 << 20)
    before = sharedmem.stats()
    kind = Pools if options.mode in ("pool", "executor") else Pipes
    chaos = kind(options.mode, methods, options.processes, options.seed, options.memory)
    try:
        chaos.run(options.minutes * 60, options.report)
    finally:
        chaos.finish()
    chaos.rows = None
    forkserver._forkserver._stop()  # the fork server is a participant too
    kept = sharedmem.stats()["leases"]
    end = time.monotonic() + PATIENCE
    while (left := left_behind(before)) and time.monotonic() < end:
        time.sleep(0.05)
    failures = [*chaos.failures, *left]
    print(", ".join(f"{count} {name}" for name, count in chaos.counts.items()) + f", {kept} leases left")
    for failure in failures:
        print("FAILED:", failure)
    print(f"{0 if failures else 1} passed, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
