"""Users of everything by which processes wait, killed at random: ``python -m tests.chaos_sync --minutes 10``.

A quarter of the time each: a `Queue`; a buffer of a few places under a `Condition`; a `Lock` and an `RLock`;
a `Latest`. The parent kills one user after the other with SIGKILL, at any moment, and starts another in its
place. A table tells what came of it:

sent, received
    Messages whose `put` began, and those that were got; changes of what a lock guards, begun and made;
    arrays whose `put` began, and reads of a `Latest`, of which readers skip some and share others.
lost
    Messages, changes and arrays that were lost with their killed owner, which was just putting, taking or
    making them; except for `Latest`, what was sent and not received.
lost alone
    The same without such an owner.
torn, doubled, disordered
    Whose bytes don't fit their checksum, which arrived twice, or late; for locks: half a change without a
    warning, and two owners at once.
hung, left
    Processes without a step for a minute; messages, leases and blocks at the end.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import random
import sys
import time
import warnings
import zlib
from queue import Empty
from typing import Any

import numpy as np

import sharedmem
from sharedmem import atomics
from tests import chaos_queue
from tests.chaos_queue import SENDERS_EVER, Crew

PAUSE = 0.03  # seconds between two kills at most, half of it on average


# -- a condition


class Buffer:
    """A bounded queue of bytes, made of a condition and arrays: what `chaos_queue.run` needs of one."""

    PLACES, MOST = 4, 1 << 17  # messages; bytes of each

    def __init__(self) -> None:
        self.condition = sharedmem.Condition()
        self.counts = sharedmem.zeros(2, np.int64)  # messages put, taken: a store of one is what commits
        self.heads = sharedmem.zeros((self.PLACES, 4), np.int64)
        self.bodies = sharedmem.zeros((self.PLACES, self.MOST), np.uint8, populate=False)
        # A dead owner has made its store or has not: there is nothing to repair.
        warnings.filterwarnings("ignore", category=RuntimeWarning, message=".*ended while it held")

    def qsize(self) -> int:
        return int(self.counts[0] - self.counts[1])

    def put(self, message: tuple[int, int, int, Any]) -> None:
        data = np.frombuffer(message[3], np.uint8)
        with self.condition:
            self.condition.wait_for(lambda: self.qsize() < self.PLACES)
            place = self.counts[0] % self.PLACES
            self.heads[place] = (*message[:3], data.size)
            self.bodies[place, : data.size] = data
            self.counts[0] += 1
            self.condition.notify_all()

    def get(self, timeout: float) -> tuple[int, int, int, bytes]:
        with self.condition:
            if not self.condition.wait_for(self.qsize, timeout):
                raise Empty
            place = self.counts[1] % self.PLACES
            sender, number, checksum, size = self.heads[place].tolist()
            data = self.bodies[place, :size].tobytes()
            self.counts[1] += 1
            self.condition.notify_all()
            return sender, number, checksum, data


# -- locks


class Guarded:
    """Two locks and what each guards: a pair of numbers that are equal but within a change."""

    def __init__(self) -> None:
        self.locks = sharedmem.Lock(), sharedmem.RLock()
        self.inside = sharedmem.zeros(2, np.int64)  # by lock: its owner's number
        self.pairs = sharedmem.zeros((2, 2), np.int64)


class Notes:
    """What the processes say of themselves, by process."""

    def __init__(self) -> None:
        self.begun = sharedmem.zeros(SENDERS_EVER, np.int64)
        self.finished = sharedmem.zeros(SENDERS_EVER, np.int64)
        self.steps = sharedmem.zeros(2 * SENDERS_EVER, np.int64)
        self.torn = sharedmem.zeros(1, np.int64)
        self.doubled = sharedmem.zeros(1, np.int64)
        self.disordered = sharedmem.zeros(1, np.int64)
        self.received = sharedmem.zeros(1, np.int64)
        self.stop = sharedmem.zeros(1, np.int64)


def change(guarded: Guarded, notes: Notes, me: int) -> None:
    """Changes what the locks guard, until it is told to stop, or killed."""
    rng = random.Random(me)
    told: list[Any] = []
    warnings.simplefilter("always")
    warnings.showwarning = lambda *warning, **_: told.append(warning)
    while not notes.stop[0]:
        which = rng.randrange(2)
        lock, pair = guarded.locks[which], guarded.pairs[which]
        told.clear()
        lock.acquire()
        if which == 1:
            lock.acquire()
        if atomics.exchange(guarded.inside, which, me + 1) != 0 and not told:
            atomics.add(notes.doubled, 0, 1)
        if pair[0] != pair[1]:
            if not told:
                atomics.add(notes.torn, 0, 1)
            pair[0] = pair[1]  # the change of the dead did not take place
        notes.begun[me] += 1
        pair[0] += 1
        if rng.random() < 0.02:
            time.sleep(0.001)
        pair[1] += 1
        notes.finished[me] += 1
        atomics.store(guarded.inside, which, 0)
        if which == 1:
            lock.release()
        lock.release()
        notes.steps[me] += 1


def run_locks(minutes: float, seed: int) -> dict[str, int]:
    """The counts of a run."""
    guarded, notes = Guarded(), Notes()
    crews = [Crew(change, 0, guarded, notes, 4)]
    kills, hung = kill_at_random(crews, minutes, seed)
    notes.stop[0] = 1
    hung += crews[0].finish()
    begun, finished = int(notes.begun.sum()), int(notes.finished.sum())
    changes = int(guarded.pairs[:, 1].sum())
    # Who died between the two notes may have made its change.
    of_dead = int(np.count_nonzero(notes.begun[: crews[0].started] > notes.finished[: crews[0].started]))
    assert begun - finished == of_dead <= kills
    counts = {
        "kills": kills,
        "sent": begun,
        "received": changes,
        "lost": begun - changes,
        "lost alone": max(0, begun - changes - of_dead) + max(0, finished - changes),
        "torn": int(notes.torn[0]) + int(np.count_nonzero(guarded.pairs[:, 0] < guarded.pairs[:, 1])),
        "doubled": int(notes.doubled[0]) + max(0, changes - begun),
        "hung": hung,
    }
    del guarded, notes, crews
    return counts | {"left": left()}


# -- Latest


def write(latest: sharedmem.Latest, notes: Notes, me: int) -> None:
    """The writer, until it is told to stop, or killed. Each array says whose it is, and which one."""
    for number in itertools.count(1):
        if notes.stop[0] == 2:
            return
        frame = sharedmem.full(20_000, me << 32 | number, np.int64)
        frame[-1] = zlib.crc32(frame[:-1])
        notes.begun[me] = number
        latest.put(frame)
        notes.finished[me] = number
        notes.steps[me] += 1
        del frame
        time.sleep(0.0005)


def read(latest: sharedmem.Latest, notes: Notes, me: int) -> None:
    """A reader, until it is told to stop, or killed."""
    last, newest, kept = 0, 0, []
    rng = random.Random(me)
    while not notes.stop[0]:
        frame, number = latest.get(after=last)
        kept.append(frame)
        if len(kept) > 4:  # no process writes into memory that a reader has
            kept.pop(rng.randrange(4))
        for each in kept:
            if zlib.crc32(each[:-1]) != each[-1]:
                atomics.add(notes.torn, 0, 1)
        if frame[0] == newest:
            atomics.add(notes.doubled, 0, 1)
        elif frame[0] < newest or number <= last:
            atomics.add(notes.disordered, 0, 1)
        last, newest = number, int(frame[0])
        atomics.add(notes.received, 0, 1)
        notes.steps[SENDERS_EVER + me] += 1


def run_latest(minutes: float, seed: int) -> dict[str, int]:
    """The counts of a run."""
    latest, notes = sharedmem.Latest(), Notes()
    crews = [Crew(write, 0, latest, notes, 1), Crew(read, SENDERS_EVER, latest, notes, 3)]
    kills, hung = kill_at_random(crews, minutes, seed)
    for stop, crew in ((1, crews[1]), (2, crews[0])):
        notes.stop[0] = stop
        hung += crew.finish()
    begun, put, numbers = int(notes.begun.sum()), int(notes.finished.sum()), latest.get()[1]
    lost = begun - numbers  # its writer was killed before it was the newest
    counts = {
        "kills": kills,
        "sent": begun,
        "received": int(notes.received[0]),
        "lost": lost,
        "lost alone": max(0, put - numbers) + max(0, lost - crews[0].started),
        "torn": int(notes.torn[0]),
        "doubled": int(notes.doubled[0]) + max(0, numbers - begun),
        "disordered": int(notes.disordered[0]),
        "hung": hung,
    }
    del latest, notes, crews, crew
    return counts | {"left": left()}


# -- all


def kill_at_random(crews: list[Crew], minutes: float, seed: int) -> tuple[int, int]:
    """How many were killed, and how many hang."""
    rng = random.Random(seed)
    kills = hung = 0
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end and max(c.started for c in crews) < SENDERS_EVER and not hung:
        time.sleep(rng.random() * PAUSE)
        rng.choice(crews).kill_one(rng)
        kills += 1
        hung = sum(c.hung() for c in crews)
    return kills, hung


def left() -> int:
    gc.collect()
    sharedmem.collect(leases=True)
    stats = sharedmem.stats()
    return stats["leases"] + stats["shared_blocks"]


def run_queue(minutes: float, seed: int, make: Any = None) -> dict[str, int]:
    """The counts of a run, by the names of the table."""
    got = chaos_queue.run(minutes, seed, 3, 3, make) if make else chaos_queue.run(minutes, seed, 3, 3)
    never_came = got["half_put"] - got["half_put_arrived"]
    names = ("kills", "received", "torn", "doubled", "disordered", "hung")
    return {name: got[name] for name in names} | {
        "sent": got["sent"] + got["half_put"],
        "lost": got["lost_with_their_receiver"] + never_came,
        "lost alone": got["lost_without_owner"],
        "left": got["left"] + got["waiting"],
    }


PARTS = {
    "Queue": run_queue,
    "Condition": lambda minutes, seed: run_queue(minutes, seed, Buffer),
    "Lock, RLock": run_locks,
    "Latest": run_latest,
}
BAD = ("lost alone", "torn", "doubled", "disordered", "hung", "left")
COLUMNS = ("kills", "sent", "received", "lost", *BAD)


def main() -> int:
    """The command; its exit status says whether all went well."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    asked = parser.parse_args()
    print(f"seed {asked.seed}\n{'':12}" + "".join(f"{name:>11}" for name in COLUMNS), flush=True)
    total = dict.fromkeys(COLUMNS, 0)
    failed = False
    for part, run in PARTS.items():
        counts = run(asked.minutes / len(PARTS), asked.seed)
        print(f"{part:12}" + "".join(f"{counts.get(name, 0):11}" for name in COLUMNS), flush=True)
        failed |= counts["received"] == 0 or any(counts.get(name, 0) for name in BAD)
        for name in COLUMNS:
            total[name] += counts.get(name, 0)
    print(f"{'all':12}" + "".join(f"{total[name]:11}" for name in COLUMNS), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
