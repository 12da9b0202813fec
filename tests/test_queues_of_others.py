"""Queues of other processes in `sharedmem.stats`, `python -m sharedmem info` and `top`."""

import json
import os
import re

import commands
import numpy as np
import pytest
import support

import sharedmem

kept = []


def keep_queue():
    """In another process: a queue with two messages, which no other process has."""
    kept.append(sharedmem.Queue(5))
    kept[0].put_many([1, 2])


def begin(other, function, *args):
    """Has another process call a function; `other.result()` waits for what it returns."""
    other.conn.send((function, args))


def told(related=False):
    """The queues that `info` tells, and those of this process's arena."""
    status, out, err = commands.run("info", "--json", related=related)
    assert (status, err) == (0, "")
    arenas = json.loads(out)["arenas"]
    mine = sharedmem.stats()["arena"]
    every = [(arena["arena"], queue) for arena in arenas for queue in arena.get("queues", ())]
    return [queue for _, queue in every], [queue for arena, queue in every if arena == mine]


def without_time(queue):
    return {name: value for name, value in queue.items() if name != "seconds"}


@pytest.mark.parametrize("related", [False, True], ids=["stranger", "child"])
def test_info_shows_what_is_in_queues_and_who_has_them(related):
    q, bounded = sharedmem.Queue(), sharedmem.Queue(9)
    q.put("text")
    q.put(np.zeros(100))
    bounded.put(sharedmem.zeros(10_000, "u1"))
    _, ours = told(related)
    # Oldest first; tests that ran before may have left others, which go when garbage is collected.
    ours = [queue for queue in ours if os.getpid() in queue["processes"]][-2:]
    assert list(map(without_time, ours)) == [without_time(q.stats()), without_time(bounded.stats())]
    assert [queue["messages"] for queue in ours] == [2, 1]
    assert [queue["maxsize"] for queue in ours] == [0, 9]
    assert ours[0]["kept"] == 0
    assert 10_000 <= ours[1]["kept"] <= 20_000
    assert all(queue["processes"] == [os.getpid()] for queue in ours)
    assert all(queue["pid"] == os.getpid() for queue in ours)
    assert ours[0]["seconds"] >= ours[1]["seconds"] > 0


def test_stats_lists_queues_of_other_processes_and_who_waits():
    q = sharedmem.Queue(1)
    with support.Remote() as other:
        before = len(sharedmem.stats()["queues"])
        other.call(keep_queue)
        (theirs,) = [each for each in sharedmem.stats()["queues"] if each["pid"] == other.pid]
        assert len(sharedmem.stats()["queues"]) == before + 1
        assert (theirs["messages"], theirs["maxsize"], theirs["processes"]) == (2, 5, [other.pid])
        assert without_time(told()[1][-1]) == without_time(theirs)
        begin(other, q.get)  # and waits
        assert support.wait_until(lambda: q.stats()["receivers"] == [other.pid])
        mine = next(each for each in told()[1] if each["receivers"])
        assert (mine["receivers"], mine["senders"]) == ([other.pid], [])
        assert set(mine["processes"]) == {os.getpid(), other.pid}
        q.put("now")
        assert other.result() == "now"
    # It ended without dropping its queue, which has no holder until the next search for the dead.
    sharedmem.collect()
    assert len(sharedmem.stats()["queues"]) == before


def test_a_queue_that_all_drop_is_not_listed_and_frees_everything():
    start = sharedmem.stats()
    q = sharedmem.Queue()
    for _ in range(5):
        q.put(sharedmem.ones(2**20, np.uint8))
    q.put(b"." * 100_000)
    assert sharedmem.stats()["shared_bytes"] - start["shared_bytes"] > 5 * 2**20
    del q
    now = sharedmem.stats()
    assert list(map(without_time, now["queues"])) == list(map(without_time, start["queues"]))
    assert (now["shared_bytes"], now["leases"]) == (start["shared_bytes"], start["leases"])


def without_holders():
    return sum(not each["processes"] for each in sharedmem.stats()["queues"])


def test_queues_of_killed_processes_are_listed_without_holders_or_not_at_all():
    before = without_holders()  # on Windows, messages that a killed process has not read keep queues
    with support.Remote() as other:
        other.call(keep_queue)
        other.kill()
        for each in (*sharedmem.stats()["queues"], *told()[1]):
            assert other.pid not in each["processes"]
    sharedmem.collect()
    assert without_holders() == before


def test_an_array_with_the_bytes_of_a_queue_is_not_taken_for_one():
    q = sharedmem.Queue()
    q.put(1)
    before, _ = told()
    memory = q.__reduce__()[1][1]
    copies = [sharedmem.copy(memory) for _ in range(3)]
    after, _ = told()
    assert list(map(without_time, after)) == list(map(without_time, before))
    assert len(copies) == 3


def test_a_stray_write_into_a_queue_does_not_break_reports():
    q = sharedmem.Queue()
    memory = q.__reduce__()[1][1]
    sound = memory.copy()
    number = len(sharedmem.stats()["queues"])
    rng = np.random.default_rng(1)
    try:
        for _ in range(30):
            memory[:] = rng.integers(0, 256, len(memory), dtype="u1")
            assert len(sharedmem.stats()["queues"]) == number - 1
        _, ours = told()
        assert [queue["processes"] for queue in ours if queue["messages"] is None] == [[os.getpid()]]
        status, out, err = commands.run("info")
        assert (status, err) == (0, "")
        assert re.search(r"\?\s+\?\s+16.0 KiB\s+\?", commands.without_lines(out))
        assert re.fullmatch(r"<Queue at 0x[0-9a-f]+(, maxsize \d+)?>", repr(q))
    finally:
        memory[:] = sound
    assert len(sharedmem.stats()["queues"]) == number
    assert repr(q).endswith("0 messages>")


def test_a_single_wrong_word_in_a_queue_makes_it_one_that_cannot_be_read():
    q = sharedmem.Queue(7)
    memory = q.__reduce__()[1][1]
    at_valid = range(0, len(memory), 64)
    seen = []
    for each in range(3):
        q.put(each)
        seen.append(memory.view("u4")[:: 64 // 4].copy())
    assert q.get() == 0
    # The word that says which copy of the record is valid: every commit turns it over.
    (valid,) = (i for i, *was in zip(at_valid, *seen, strict=True) if was in ([0, 1, 0], [1, 0, 1]))
    words = memory.view("u8")
    rings = [i for i in range(7, len(words)) if words[i] == 16384 and list(words[i - 4 : i - 2]) == [1, 3]]
    (ring,) = rings
    head, tail, taken, put = range(ring - 6, ring - 2)
    number = len(sharedmem.stats()["queues"])

    def told_with(where, value):
        was = int(words[where])
        words[where] = value
        try:
            return len(sharedmem.stats()["queues"])
        finally:
            words[where] = was

    assert told_with(tail, words[head] + 16384) == number
    assert told_with(tail, words[head] + 16385) == number - 1
    assert told_with(head, words[tail]) == number
    assert told_with(head, words[tail] + 1) == number - 1
    assert told_with(taken, words[put]) == number
    assert told_with(taken, words[put] + 1) == number - 1
    assert told_with(0, words[0] ^ 1) == number - 1
    assert told_with(valid // 8, words[valid // 8] | 2) == number - 1
    assert q.get() == 1
    assert q.stats()["messages"] == 1


@pytest.mark.parametrize("command", ["info", "top"])
def test_tables_have_queues(command):
    q = sharedmem.Queue(44)
    q.put("x")
    with support.Remote() as other:
        begin(other, q.get, True, support.TIMEOUT)
        assert other.result() == "x"
        begin(other, q.get, True, support.TIMEOUT)
        assert support.wait_until(lambda: q.stats()["receivers"] == [other.pid])
        status, out, err = commands.run(command)
        q.put("end")
        assert other.result() == "end"
    assert (status, err) == (0, "")
    assert "Queues" in out
    row = next(line for line in out.splitlines() if re.search(r"\b44\b.*get", line))
    assert f"get {other.pid}" in row
    assert len(row) <= 80
