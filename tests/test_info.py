"""python -m sharedmem info, and the survey of segments behind it."""

import ctypes
import json
import mmap
import multiprocessing
import os
import signal

import commands
import numpy as np
import pytest
import support
import workers

import sharedmem
import sharedmem._cli.info
from sharedmem._cli import segments

IPC_CREAT, IPC_RMID, IPC_PRIVATE = 0o1000, 0, 0


def info(**options):
    status, out, err = commands.run("info", "--json", **options)
    assert (status, err) == (0, "")
    return json.loads(out)


@pytest.mark.needs_proc
def test_info_of_a_stranger():
    a = sharedmem.ones(2**21, np.uint8)
    found = info()
    me = {process["pid"]: process for process in found["processes"]}[os.getpid()]
    assert me["resident_bytes"] >= a.nbytes
    ours = [segment for segment in found["segments"] if os.getpid() in segment["processes"]]
    assert {segment["kind"] for segment in ours} >= {"arena"}
    assert {segment["id"] for segment in ours} == set(me["segments"])
    assert all(segment["removed"] and not segment["orphan"] for segment in ours)
    assert found["version"] == sharedmem.__version__


def arena_of_this_process(found):
    return next(arena for arena in found["arenas"] if arena.get("arena") == sharedmem.stats()["arena"])


@pytest.mark.parametrize("related", [False, True], ids=["stranger", "child"])
def test_participants_of_an_arena(related):
    """Called in no arena or in this one, it lists the participants and what they allocate from."""
    a = sharedmem.ones(2**22, np.uint8)
    with support.Remote() as living:
        assert living.call(len, a) == len(a)
        found = arena_of_this_process(info(related=related))
        states = {participant["pid"]: participant["state"] for participant in found["participants"]}
        assert (states[os.getpid()], states[living.pid]) == ("active", "active")
        me = next(participant for participant in found["participants"] if participant["pid"] == os.getpid())
        assert me["bytes"] >= a.nbytes
        assert not any(participant["self"] for participant in found["participants"])
        assert found["cache_limit"] == sharedmem.memory_limit()["cache"]
        assert found["segment"] in [s["id"] for s in info(related=related)["segments"]]


def test_the_dead_are_listed():
    """Before one of the living has cleared up after them."""
    with support.Remote("unrelated") as root:
        pids = root.call(workers.fork_two_and_kill_one)
        arenas = [arena.get("participants", ()) for arena in info()["arenas"]]  # another one may be ending
        states = {p["pid"]: p["state"] for arena in arenas for p in arena}
        assert [states[pid] for pid in (root.pid, *pids)] == ["active", "active", "dead"]
        os.kill(pids[0], signal.SIGKILL)


def test_bytes_in_flight():
    a = sharedmem.ones(2**20, np.uint8)
    queue = multiprocessing.SimpleQueue()
    queue.put(a)
    found = arena_of_this_process(info())
    assert found["leases"] >= 1
    assert found["bytes_in_flight"] >= a.nbytes
    assert found["oldest_in_flight"] > 0
    (mine,) = [p for p in found["participants"] if p["pid"] == os.getpid()]
    assert mine["leases"] >= 1
    assert mine["bytes_in_flight"] >= a.nbytes
    assert 0 < mine["oldest_in_flight"] <= found["oldest_in_flight"]
    assert queue.get() is not None
    queue.close()


def test_an_arena_that_cannot_be_read_is_reported(monkeypatch):
    other = segments.Segment(0, "sysv", "arena", 1, 0, 0, 1, 1, removed=True)
    looked = []

    def refuse(*where):
        looked.append(where)
        raise PermissionError("not here")

    monkeypatch.setattr(sharedmem._cli.info, "inspect_arena", refuse)
    monkeypatch.setattr(sharedmem._cli.info, "survey", lambda uid, but: ([other], []))
    assert sharedmem._cli.info.gather()["arenas"] == [{"segment": 0, "error": "not here"}]
    assert looked == [("sysv", 0, 0, 0)]


def test_info_in_words():
    a = sharedmem.ones(2**21, np.uint8)
    status, out, err = commands.run("info", related=True)
    assert (status, err) == (0, "")
    assert "Shared-memory segments of " in out
    assert "Processes that use sharedmem" in out
    assert f", {sharedmem.stats()['arena']}: its participants" in out
    assert f"{os.getpid()}" in out
    assert max(map(len, out.splitlines())) <= 80
    del a


def test_info_without_rich():
    a = sharedmem.ones(2**21, np.uint8)
    status, out, err = commands.without_rich("info")
    assert (status, err) == (0, "")
    assert "Shared-memory segments of " in out
    assert any(line.split()[:1] == [str(os.getpid())] for line in out.splitlines())
    del a


def test_info_to_a_reader_that_closes_the_pipe():
    with commands.start("info") as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


@pytest.fixture
def segment():
    """A function that makes a System V segment that no process has attached; returns its id."""
    libc = ctypes.CDLL(None, use_errno=True)
    made = []

    def make(key):
        made.append(libc.shmget(key, ctypes.c_size_t(4096), IPC_CREAT | 0o600))
        assert made[-1] >= 0, os.strerror(ctypes.get_errno())
        return made[-1]

    yield make
    for shmid in made:
        libc.shmctl(shmid, IPC_RMID, None)


def test_survey_distinguishes_our_segments_from_others(segment):
    orphan, other = segment(0x534D0000 | os.getpid() & 0xFFFF), segment(IPC_PRIVATE)
    found = {one.id: one for one in segments.survey(os.geteuid())[0]}
    assert (found[orphan].kind, found[orphan].orphan, found[orphan].removed) == ("arena", True, False)
    assert (found[other].kind, found[other].orphan, found[other].removed) == ("other", False, False)
    assert found[other].creator == os.getpid()
    _, out, _ = commands.run("info")
    row = next(line for line in out.splitlines() if line.split()[:1] == [str(other)])
    assert row.rstrip().endswith("by ipcrm")


def test_survey_does_not_take_a_foreign_segment_for_ours(segment):
    """`ftok(path, "S")` makes keys that begin like ours."""
    libc = ctypes.CDLL(None)
    libc.shmat.restype = ctypes.c_void_p
    libc.shmdt.argtypes = (ctypes.c_void_p,)
    stranger = segment(0x534D0000 | (os.getpid() + 1) & 0xFFFF)
    at = libc.shmat(stranger, None, 0)
    ctypes.memmove(at, b"data", 4)
    libc.shmdt(at)
    found = {one.id: one for one in segments.survey(os.geteuid())[0]}
    assert (found[stranger].kind, found[stranger].orphan) == ("other", False)


def test_survey_of_a_memfd():
    fd = os.memfd_create("sharedmem:0123abcd")
    try:
        os.ftruncate(fd, 2**24)
        os.pwrite(fd, bytes(2**16), 0)
        with mmap.mmap(fd, 2**24):
            found, processes = segments.survey(os.geteuid())
            inode = os.fstat(fd).st_ino
            one = {one.id: one for one in found}[inode]
            assert (one.backing, one.kind, one.bytes) == ("memfd", "arena", 2**24)
            assert 2**16 <= one.resident_bytes <= 2**21  # a huge page where the system makes them unasked
            assert one.processes == [os.getpid()]
            assert (one.swapped_bytes, one.creator) == (None, None)
            assert inode in {p.pid: p for p in processes}[os.getpid()].segments
    finally:
        os.close(fd)


def test_survey_leaves_out_a_process():
    sharedmem.empty(1)
    _, processes = segments.survey(os.geteuid(), but=os.getpid())
    assert os.getpid() not in {process.pid for process in processes}
