"""python -m sharedmem info and top, as every system has them: processes start by spawn or anew.

`test_info` has what Linux tells besides.
"""

import json
import os

import commands
import numpy as np
import pytest
import support
import workers
from naming import own_names  # noqa: F401

import sharedmem


def info():
    status, out, err = commands.run("info", "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


def arena_of(found, name):
    return next(arena for arena in found["arenas"] if arena.get("arena") == name)


def states_in(arena):
    return {participant["pid"]: participant["state"] for participant in arena["participants"]}


def test_the_processes_of_an_arena_are_listed():
    a = sharedmem.ones(2**21, np.uint8)
    with support.Remote("spawn") as other:
        assert other.call(len, a) == len(a)
        found = info()
        arena = arena_of(found, sharedmem.stats()["arena"])
        assert (states_in(arena)[os.getpid()], states_in(arena)[other.pid]) == ("active", "active")
        assert not any(participant["self"] for participant in arena["participants"])
        segment = next(each for each in found["segments"] if each["id"] == arena["segment"])
        assert {os.getpid(), other.pid} <= set(segment["processes"])
        assert (segment["kind"], segment["orphan"]) == ("arena", False)
        assert segment["bytes"] >= segment["resident_bytes"] >= a.nbytes
        assert segment["attached"] >= 2
        processes = {process["pid"]: process for process in found["processes"]}
        for pid in (os.getpid(), other.pid):
            assert segment["id"] in processes[pid]["segments"]
            assert "python" in processes[pid]["command"].lower()


def test_what_the_command_itself_uses_is_not_listed(python):
    """In a program that no other one has started, so that it has an arena of its own."""
    code = """
        import os, sharedmem
        from sharedmem._cli import info
        a = sharedmem.ones(10)
        found = info.gather()
        own = [each for each in found["arenas"] if each.get("arena") == sharedmem.stats()["arena"]]
        listed = [pid for segment in found["segments"] for pid in segment.processes]
        print(own, os.getpid() in [process.pid for process in found["processes"]], os.getpid() in listed)
    """
    assert python(code) == "[] False False"


def test_a_queue_with_a_message_has_no_lease_whose_age_is_told():
    q = sharedmem.Queue()
    q.put(3)
    status, out, err = commands.run("info")
    assert (status, err) == (0, "")
    assert "the oldest since ." not in out
    assert "1 leases." in out
    q.get()


def test_a_killed_process_is_listed_as_dead():
    """Before one of the living has cleared up after it."""
    with support.Remote("unrelated") as root:
        pid = root.call(workers.spawn_and_kill_one)
        name = root.call(workers.stats)["arena"]
        found = info()
        assert states_in(arena_of(found, name))[pid] == "dead"
        assert pid not in [process["pid"] for process in found["processes"]]


def test_all_segments_of_an_arena_have_its_processes():
    with support.Remote("unrelated", SHAREDMEM_ARENA_SIZE=2**26) as other:
        for key in "ab":
            other.call(workers.hold_full, key, 2**26, 1, "u1")
        name, count = (other.call(workers.stats)[key] for key in ("arena", "segments"))
        found = info()
        segments = [each for each in found["segments"] if each["kind"] != "census"]
        assert sum(each["processes"] == [other.pid] for each in segments) >= 2
        assert arena_of(found, name)["segments"] == count


def test_names_are_listed():
    a = sharedmem.create("info/listed", (3, 4), "f4")
    found = info()
    names = [name for arena in found["arenas"] for name in arena.get("names") or ()]
    (name,) = [each for each in names if each["name"] == "info/listed"]
    assert (name["state"], name["shape"], name["nbytes"]) == ("ready", [3, 4], a.nbytes)
    assert os.getpid() in name["processes"]
    assert "names" in [segment["kind"] for segment in found["segments"]]
    sharedmem.unlink("info/listed")


def test_the_dead_do_not_have_a_name():
    """Before one of the living has cleared up after them."""
    with support.Remote("unrelated") as root:
        pid = root.call(workers.create_and_kill_a_holder, "info/left")
        found = info()
        names = [name for arena in found["arenas"] for name in arena.get("names") or ()]
        (name,) = [each for each in names if each["name"] == "info/left"]
        assert root.pid in name["processes"]
        assert pid not in name["processes"]


@pytest.mark.parametrize("command", ["info", "top"])
def test_tables_show_this_process_and_its_arena(command):
    a = sharedmem.ones(1000)
    status, out, err = commands.run(command)
    assert (status, err) == (0, "")
    assert str(os.getpid()) in out
    assert "participants" in out or "Processes" in out
    del a
