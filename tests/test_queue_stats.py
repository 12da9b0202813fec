"""Reports on queues: `Queue.stats`, and `stats` on all queues that a process has."""

import multiprocessing
import os
import pickle
import signal
import time
from queue import Empty, Full

import numpy as np
import pytest
from support import QUICKEST, TIMEOUT

import sharedmem

CONTEXT = multiprocessing.get_context(QUICKEST)


class Unhashable(sharedmem.Queue):
    __hash__ = None


def wait_until(holds):
    end = time.monotonic() + TIMEOUT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


def start(work, *args):
    process = CONTEXT.Process(target=work, args=args)
    process.start()
    return process


def test_messages_and_their_bytes_are_counted():
    q = sharedmem.JoinableQueue(7)
    objects = [1, "text", b"." * 10_000]
    q.put_many(objects)
    found = q.stats()
    assert found["messages"] == found["unfinished"] == 3
    # A pickle that the queue writes itself is some bytes shorter than one of the pickle module.
    pickled = sum(len(pickle.dumps(each, 5)) for each in objects)
    assert pickled - 2 * 10 <= found["bytes"] <= pickled
    assert found["maxsize"] == 7
    assert found["memory"] >= 16384
    assert found["receivers"] == found["senders"] == found["joiners"] == []
    q.get_many()
    q.task_done()
    found = q.stats()
    assert (found["messages"], found["bytes"], found["unfinished"]) == (0, 0, 2)


def test_sleeping_processes_are_listed_until_they_are_woken():
    q, full = sharedmem.JoinableQueue(), sharedmem.JoinableQueue(1)
    full.put(0)
    receivers = [start(q.get) for _ in range(3)]
    sender, joiner = start(full.put, 1), start(full.join)
    wait_until(lambda: q.stats()["receivers"] == sorted(each.pid for each in receivers))
    wait_until(lambda: full.stats()["senders"] == [sender.pid])
    wait_until(lambda: full.stats()["joiners"] == [joiner.pid])
    assert q.stats()["senders"] == full.stats()["receivers"] == []
    q.put_many(range(3))
    for expected in (0, 1):
        assert full.get(timeout=TIMEOUT) == expected
        full.task_done()
    for each in (*receivers, sender, joiner):
        each.join(TIMEOUT)
        assert each.exitcode == 0
    assert q.stats()["receivers"] == full.stats()["senders"] == full.stats()["joiners"] == []


def test_the_dead_are_not_named_and_leave_room_for_others():
    q = sharedmem.Queue()
    most = 32  # as queue.hpp lists
    for _ in range(2):
        processes = [start(q.get) for _ in range(most // 2 + 1)]
        pids = {each.pid for each in processes}
        wait_until(lambda pids=pids: pids == set(q.stats()["receivers"]))
        for each in processes:
            each.kill()
        for each in processes:
            each.join()
    assert q.stats()["receivers"] == []


def without_time(found):
    return {name: value for name, value in found.items() if name != "seconds"}


def test_stats_has_each_queue_once():
    before = len(sharedmem.stats()["queues"])
    q, other = sharedmem.Queue(3), Unhashable()
    again = pickle.loads(pickle.dumps(q))
    q.put(1)
    found = sharedmem.stats()["queues"][before:]
    assert [(each["messages"], each["maxsize"]) for each in found] == [(1, 3), (0, 0)]
    assert without_time(found[0]) == without_time(again.stats())
    del q, again, other
    assert len(sharedmem.stats()["queues"]) == before


def test_stats_does_not_wait_for_a_stopped_process_that_holds_the_lock():
    q = sharedmem.Queue()

    def put_for_ever():
        while True:
            q.put_many(range(1000))
            q.get_many()

    process = start(put_for_ever)
    try:
        locked = 0
        end = time.monotonic() + TIMEOUT
        while locked < 3 and time.monotonic() < end:
            time.sleep(0.003)
            os.kill(process.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            try:
                q.get_nowait() if q.stats()["messages"] else q.put_nowait(0)
            except (Empty, Full):
                locked += 1
                found = q.stats()
                assert 0 <= found["messages"] <= 2000
                assert process.pid in found["processes"]
                assert len(sharedmem.stats()["queues"]) >= 1
            os.kill(process.pid, signal.SIGCONT)
        assert locked == 3
    finally:
        process.kill()
        process.join()


def test_stats_of_a_queue_that_was_not_made():
    with pytest.raises(ValueError, match="__init__"):
        sharedmem.Queue.__new__(sharedmem.Queue).stats()


def test_simple_queues_are_shown_as_well():
    q = sharedmem.SimpleQueue()
    q.put(np.arange(3))
    assert q.stats()["messages"] == 1
    assert sharedmem.stats()["queues"][-1]["messages"] == 1
