"""Users of a queue that are killed at random moments: ``python -m tests.chaos_queue --minutes 10``.

Senders put numbered messages with checksums, bytes or shared arrays, into one bounded queue; receivers take
them out. The parent kills one or the other with SIGKILL and starts another in its place. In memory that all
share, senders say which message they are putting and which was put, receivers which they got and whether they
are in `get`.

Lost may be: the message that a killed sender was putting, and one message for each receiver that was killed
between its call of `get` and its note of what it got. Nothing may be torn, doubled or out of order, no
process may hang, and at the end nothing may be left.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import random
import signal
import sys
import time
import zlib
from collections.abc import Callable
from queue import Empty
from typing import Any

import numpy as np

import sharedmem
from sharedmem import atomics

PATIENCE = 60.0  # seconds without a step of a process that is not stopped: it hangs
MOST = 1 << 17  # messages of one sender
SENDERS_EVER = 4096


class Notes:
    """What the processes say of themselves."""

    def __init__(self) -> None:
        self.begun = sharedmem.zeros(SENDERS_EVER, np.int64)  # by sender: messages whose `put` began
        self.put = sharedmem.zeros(SENDERS_EVER, np.int64)  # and returned
        self.getting = sharedmem.zeros(SENDERS_EVER, np.int64)  # by receiver: 1 until it has noted
        self.steps = sharedmem.zeros(2 * SENDERS_EVER, np.int64)  # of senders, then of receivers
        self.torn = sharedmem.zeros(1, np.int64)
        self.disordered = sharedmem.zeros(1, np.int64)
        self.stop = sharedmem.zeros(1, np.int64)
        self.got = sharedmem.zeros((SENDERS_EVER, MOST), np.uint8, populate=False)  # by sender and number


def body(rng: random.Random, number: int):
    """What a message carries, and its checksum."""
    kind = rng.randrange(10)
    if kind == 0:
        a = sharedmem.full(rng.randrange(1, 30_000), number, np.int32)
        return a, zlib.crc32(a)
    size = rng.randrange(20_000) if kind == 1 else rng.randrange(200)
    data = rng.randbytes(size)
    return data, zlib.crc32(data)


def send(queue, notes: Notes, me: int) -> None:
    """A sender, until it is told to stop, or killed."""
    rng = random.Random(me)
    for number in range(MOST):
        if notes.stop[0]:
            return
        data, checksum = body(rng, number)
        notes.begun[me] = number + 1
        queue.put((me, number, checksum, data))
        notes.put[me] = number + 1
        notes.steps[me] += 1


def receive(queue, notes: Notes, me: int) -> None:
    """A receiver, until there are no messages after the stop, or it is killed."""
    last: dict[int, int] = {}
    while True:
        notes.getting[me] = 1
        try:
            sender, number, checksum, data = queue.get(timeout=0.5)
        except Empty:
            notes.getting[me] = 0
            notes.steps[SENDERS_EVER + me] += 1
            if notes.stop[0] == 2:
                return
            continue
        except Exception:
            atomics.add(notes.torn, 0, 1)
            raise
        if zlib.crc32(data) != checksum:
            atomics.add(notes.torn, 0, 1)
        if last.get(sender, -1) >= number:
            atomics.add(notes.disordered, 0, 1)
        last[sender] = number
        notes.got[sender, number] += 1  # no other process gets it, and one that did before has recorded it
        notes.getting[me] = 0
        notes.steps[SENDERS_EVER + me] += 1


class Crew:
    """The processes of one kind, of which each that was killed is replaced."""

    def __init__(self, work, first_step: int, queue, notes: Notes, count: int) -> None:
        self.work, self.first_step, self.queue, self.notes = work, first_step, queue, notes
        self.context = multiprocessing.get_context("fork")
        self.started = 0
        self.running: dict[int, multiprocessing.Process] = {}
        self.seen: dict[int, tuple[int, float]] = {}
        self.looked = time.monotonic()
        for _ in range(count):
            self.start()

    def start(self) -> None:
        me = self.started
        self.started += 1
        process = self.context.Process(target=self.work, args=(self.queue, self.notes, me), daemon=True)
        process.start()
        self.running[me] = process
        self.seen[me] = (-1, time.monotonic())

    def kill_one(self, rng: random.Random) -> int:
        """Kills one, says which, and starts another."""
        me = rng.choice(list(self.running))
        process = self.running.pop(me)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        self.start()
        return me

    def hung(self) -> int:
        """How many have made no step for too long."""
        now = time.monotonic()
        stalled = now - self.looked if now - self.looked > 1 else 0.0  # the machine did not even run us
        self.looked = now
        self.seen = {me: (steps, at + stalled) for me, (steps, at) in self.seen.items() if me in self.running}
        for me in self.running:
            steps = int(self.notes.steps[self.first_step + me])
            if steps != self.seen[me][0]:
                self.seen[me] = (steps, now)
        return sum(now - self.seen[me][1] > PATIENCE for me in self.running)

    def finish(self) -> int:
        """Waits for all; how many had to be killed."""
        end = time.monotonic() + PATIENCE
        hung = 0
        for process in self.running.values():
            process.join(max(0.0, end - time.monotonic()))
            if process.is_alive():
                hung += 1
                process.kill()
                process.join()
        return hung


def run(
    minutes: float,
    seed: int,
    senders: int,
    receivers: int,
    make: Callable[[], Any] = lambda: sharedmem.Queue(50),
) -> dict[str, int]:
    """The counts of a run, of the queue that `make` makes."""
    rng = random.Random(seed)
    queue = make()
    notes = Notes()
    crews = [
        Crew(send, 0, queue, notes, senders),
        Crew(receive, SENDERS_EVER, queue, notes, receivers),
    ]
    kills, hung, in_get = 0, 0, 0
    dead: set[int] = set()
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end and max(c.started for c in crews) < SENDERS_EVER and not hung:
        time.sleep(rng.random() * 0.03)
        crew = rng.choice(crews)
        me = crew.kill_one(rng)
        kills += 1
        if crew is crews[0]:
            dead.add(me)
        else:
            in_get += int(notes.getting[me])
        hung += sum(c.hung() for c in crews)
    notes.stop[0] = 1
    hung += crews[0].finish()
    notes.stop[0] = 2
    hung += crews[1].finish()
    put, begun = int(notes.put.sum()), int(notes.begun.sum())
    counts = {"kills": kills, "sent": put, "received": int(np.count_nonzero(notes.got)), "half_put": 0}
    lost_of_receivers = 0
    for me in range(crews[0].started):
        sure, perhaps = int(notes.put[me]), int(notes.begun[me])
        lost_of_receivers += int(np.count_nonzero(notes.got[me, :sure] == 0))
        if perhaps > sure:  # the sender died in `put`: lost with it or not
            counts["half_put"] += 1
    counts["lost_with_their_receiver"] = lost_of_receivers
    counts["receivers_killed_in_get"] = in_get
    counts["lost_without_owner"] = max(0, lost_of_receivers - in_get)
    counts["half_put_arrived"] = counts["received"] - (put - lost_of_receivers)
    counts["torn"] = int(notes.torn[0])
    counts["doubled"] = int(np.count_nonzero(notes.got > 1))
    counts["disordered"] = int(notes.disordered[0])
    counts["hung"] = hung
    counts["waiting"] = queue.qsize()
    assert begun - put == counts["half_put"] <= kills
    del queue, notes, crews, crew
    gc.collect()
    sharedmem.collect(leases=True)
    left = sharedmem.stats()
    counts["left"] = left["leases"] + left["shared_blocks"]
    return counts


BAD = ("lost_without_owner", "torn", "doubled", "disordered", "hung", "waiting", "left")


def main() -> int:
    """The command; its exit status says whether all went well."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--senders", type=int, default=3)
    parser.add_argument("--receivers", type=int, default=3)
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    counts = run(asked.minutes, asked.seed, asked.senders, asked.receivers)
    for name, count in counts.items():
        print(f"{name.replace('_', ' '):26} {count}")
    return int(any(counts[name] for name in BAD) or counts["received"] == 0)


if __name__ == "__main__":
    sys.exit(main())
