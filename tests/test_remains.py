"""The check that tests leave nothing behind: it finds what this run made, not what other programs made."""

import contextlib
import ctypes
import os
import subprocess
import sys

import remains
from support import check_python, needs_namespaces

import sharedmem


@contextlib.contextmanager
def file_in_shm(name):
    path = f"/dev/shm/{name}"
    with open(path, "wb") as file:
        file.write(b"x")
    try:
        yield path
    finally:
        os.unlink(path)


def what_is_left(before):
    return [line.split(" ", 1)[0] for line in remains.left_since(before, grace=0)]


def test_an_unused_file_may_belong_to_another_program():
    """A semaphore of a program in another pid namespace, say, whose processes are not seen."""
    before = remains.Snapshot()
    with file_in_shm("sem.mp-stranger"):
        assert what_is_left(before) == []


def test_a_file_that_this_run_has_open():
    before = remains.Snapshot()
    with file_in_shm("unnamed") as path, open(path):
        assert what_is_left(before) == ["file"]


def test_a_file_named_after_a_process_of_this_run():
    before = remains.Snapshot()
    for name in (f"joblib_folder_{os.getpid()}_x", f"torch_{os.getpid()}"):
        with file_in_shm(name):
            assert what_is_left(before) == ["file"]
    with file_in_shm("torch_0"):
        assert what_is_left(before) == []


def test_a_segment_of_a_process_that_has_ended():
    """It may have been ours, since a segment does not go with its maker."""
    before = remains.Snapshot()
    code = """
    import ctypes
    ipc_private = 0
    print(ctypes.CDLL(None, use_errno=True).shmget(ipc_private, 4096, 0o600))
    """
    segment = int(check_python(code))
    try:
        assert what_is_left(before) == ["segment"]
    finally:
        remove(segment)
    assert what_is_left(before) == []


def remove(segment):
    ipc_rmid = 0
    assert ctypes.CDLL(None, use_errno=True).shmctl(segment, ipc_rmid, None) == 0


def test_a_segment_of_a_process_in_another_pid_namespace():
    """Seen from a namespace below: the maker, outside, has no pid there."""
    options = ["--pid", "--fork", "--mount-proc"]
    needs_namespaces(*options)
    code = """
    import sys
    import remains
    known = {memory.number for memory in remains.segments()}
    print(int(sys.argv[1]) in known, len(known) > 0)
    """
    ours = sharedmem.ones(3)  # there is an arena
    assert ours.sum() == 3
    mine = [memory.number for memory in remains.segments()]
    assert mine
    said = check_python(code, mine[0], prefix=["unshare", *options])
    assert said == "False True"


def test_a_child():
    before = remains.Snapshot()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    assert what_is_left(before) == ["process"]
    child.wait(60)  # it was killed, and its exit status taken
    assert what_is_left(before) == []
