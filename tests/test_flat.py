"""Very many arrays, one after the other: nothing grows."""

import gc
import multiprocessing
import os
import pickle
import time

import numpy as np
import pytest
from support import START_METHODS, TIMEOUT, Remote, join, private_memory, settle

import sharedmem

pytestmark = pytest.mark.slow

MEBI = 2**20


def usage():
    """What this process, and its arena, have in use: none of it may grow."""
    gc.collect()
    found = {}
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("RssShmem"):
                found["RssShmem"] = int(line.split()[1]) * 1024
    found["private memory"] = private_memory()
    with open("/proc/self/maps") as file:
        found["lines of maps"] = sum(1 for _ in file)
    found["descriptors"] = len(os.listdir("/proc/self/fd"))
    stats = sharedmem.stats()
    names = ("mapped_bytes", "arena_bytes", "live_blocks", "shared_blocks", "leases", "segments")
    return found | {name: stats[name] for name in names}


# A measure of memory moves a little with the allocators of others, too.
SLACK = {"private memory": 4 * MEBI, "RssShmem": 4 * MEBI, "mapped_bytes": 4 * MEBI, "lines of maps": 10}


def grown(before, after):
    """What grew, as {name: (before, after)}.

    A process may come to map more of what the arena has had all the time.
    """
    limits = before | {"RssShmem": max(before["RssShmem"], before["mapped_bytes"])}
    return {
        name: (before[name], after[name])
        for name, limit in limits.items()
        if after[name] > limit + SLACK.get(name, 0)
    }


def create(rounds):
    """Arrays of many sizes, each dropped when the next is there; some were shared before."""
    for i in range(rounds):
        a = sharedmem.empty(1 + i % 3000, "u1")
        if i % 16 == 0:
            pickle.dumps(a)
    del a


def test_a_million_arrays():
    create(20_000)
    before = usage()
    create(1_000_000)
    assert grown(before, usage()) == {}


def consume(conn, warm_up, rounds):
    """Receives arrays, checks each one, and reports what grew meanwhile."""
    before = None
    for i in range(warm_up + rounds):
        if i == warm_up:
            before = usage()
        a = conn.recv()
        if a[0] != i or a[-1] != i:
            conn.send(f"the array {i} begins with {a[0]}")
            return
        if i % 100 == 0:
            conn.send(i)
    del a
    conn.send(grown(before, usage()))


@pytest.mark.parametrize("method", START_METHODS)
def test_a_hundred_thousand_arrays_handed_over(method):
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    warm_up, rounds = 50_000, 100_000
    child = context.Process(target=consume, args=(theirs, warm_up, rounds))
    child.start()
    theirs.close()
    before = None
    for i in range(warm_up + rounds):
        if i == warm_up:
            before = usage()
        ours.send(sharedmem.full(1 + i % 500, float(i)))
        if i % 100 == 0:
            assert ours.poll(TIMEOUT)
            assert ours.recv() == i
    assert ours.poll(TIMEOUT)
    assert ours.recv() == {}
    assert join(child) == [0]
    ours.close()
    sharedmem.collect()
    assert grown(before, usage()) == {}


def test_the_message_of_a_dead_sender_is_kept_beyond_its_grace_while_there_is_memory():
    """Sixty seconds after its death was noticed it may be given up, but no process needs its memory."""
    settle()
    before = sharedmem.stats()["leases"]
    with Remote("spawn") as remote:
        remote.conn.send((send_and_die, ()))
        remote.wait()
    sharedmem.collect()
    assert sharedmem.stats()["leases"] == before + 1
    kept = []
    end = time.monotonic() + 65
    while time.monotonic() < end:
        time.sleep(5)
        kept.append(sharedmem.ones(6_000_000, np.uint8))
        sharedmem.collect()
        assert sharedmem.stats()["leases"] == before + 1
    sharedmem.collect(leases=True)
    assert sharedmem.stats()["leases"] == before


def send_and_die():
    """In the worker: sends without a reader, and is killed."""
    from multiprocessing.reduction import ForkingPickler

    ForkingPickler.dumps(sharedmem.ones(1000))
    os.kill(os.getpid(), 9)
