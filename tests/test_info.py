"""python -m sharedmem info, and the survey of segments behind it."""

import ctypes
import json
import mmap
import os

import commands
import numpy as np
import pytest

import sharedmem
from sharedmem import segments

IPC_CREAT, IPC_RMID, IPC_PRIVATE = 0o1000, 0, 0


def info(**options):
    status, out, err = commands.run("info", "--json", **options)
    assert (status, err) == (0, "")
    return json.loads(out)


def test_info_of_a_stranger():
    a = sharedmem.ones(2**21, np.uint8)
    found = info()
    me = {process["pid"]: process for process in found["processes"]}[os.getpid()]
    assert me["resident_bytes"] >= a.nbytes
    ours = [segment for segment in found["segments"] if os.getpid() in segment["processes"]]
    assert {segment["kind"] for segment in ours} >= {"arena"}
    assert {segment["id"] for segment in ours} == set(me["segments"])
    assert all(segment["removed"] and not segment["orphan"] for segment in ours)
    assert found["arena"] is None
    assert found["participants"] == []
    assert found["version"] == sharedmem.__version__


def test_info_of_a_child():
    a = sharedmem.ones(2**21, np.uint8)
    found = info(related=True)
    assert found["arena"]["arena"] == sharedmem.stats()["arena"]
    mine = [p for p in found["participants"] if p["pid"] == os.getpid()]
    assert [p["state"] for p in mine] == ["active"]
    assert mine[0]["bytes"] >= a.nbytes
    assert sum(p["self"] for p in found["participants"]) == 1


def test_info_in_words():
    a = sharedmem.ones(2**21, np.uint8)
    status, out, err = commands.run("info", related=True)
    assert (status, err) == (0, "")
    assert "Shared-memory segments of " in out
    assert "Processes that use sharedmem" in out
    assert f"Participants of the arena of this process, {sharedmem.stats()['arena']}" in out
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


def test_info_to_a_reader_that_goes_away():
    with commands.start("info") as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


@pytest.fixture
def segment():
    """A function that makes a System V segment that nobody has attached; its id."""
    libc = ctypes.CDLL(None, use_errno=True)
    made = []

    def make(key):
        made.append(libc.shmget(key, ctypes.c_size_t(4096), IPC_CREAT | 0o600))
        assert made[-1] >= 0, os.strerror(ctypes.get_errno())
        return made[-1]

    yield make
    for shmid in made:
        libc.shmctl(shmid, IPC_RMID, None)


def test_survey_tells_ours_from_others(segment):
    orphan, other = segment(0x534D0000 | os.getpid() & 0xFFFF), segment(IPC_PRIVATE)
    found = {one.id: one for one in segments.survey(os.geteuid())[0]}
    assert (found[orphan].kind, found[orphan].orphan, found[orphan].removed) == ("arena", True, False)
    assert (found[other].kind, found[other].orphan, found[other].removed) == ("other", False, False)
    assert found[other].creator == os.getpid()
    _, out, _ = commands.run("info")
    assert f"by: ipcrm -m {other}" in out


def test_survey_of_a_memfd():
    fd = os.memfd_create("sharedmem:0123abcd")
    try:
        os.ftruncate(fd, 2**20)
        os.pwrite(fd, bytes(2**16), 0)
        with mmap.mmap(fd, 2**20):
            found, processes = segments.survey(os.geteuid())
            inode = os.fstat(fd).st_ino
            one = {one.id: one for one in found}[inode]
            assert (one.backing, one.kind, one.bytes, one.resident_bytes) == ("memfd", "arena", 2**20, 2**16)
            assert one.processes == [os.getpid()]
            assert inode in {p.pid: p for p in processes}[os.getpid()].segments
    finally:
        os.close(fd)


def test_survey_leaves_out_a_process():
    sharedmem.empty(1)
    _, processes = segments.survey(os.geteuid(), but=os.getpid())
    assert os.getpid() not in {process.pid for process in processes}
