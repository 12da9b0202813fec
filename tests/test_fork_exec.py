"""Programs started by fork and exec, and children made by means that run no fork handlers."""

import ctypes
import os
import pickle
import signal
import subprocess

import pytest
import workers
from support import MACHINE, Remote, in_fork, reap, segments, settle, wait_until

import sharedmem
from sharedmem import StaleHandleError

CLONE = {"x86_64": 56, "aarch64": 220, "i386": 120}


def pids():
    return {row["pid"] for row in sharedmem.participants()}


@pytest.mark.parametrize("options", [{"close_fds": False}, {"close_fds": True}, {}], ids=str)
def test_a_program_started_pins_nothing(options):
    with Remote("unrelated") as remote:
        remote.call(workers.hold_full, "a", 1000, 1.0)
        assert segments(remote.pid)
        pid = remote.call(workers.start_sleep, options)
        try:
            remote.kill()
            assert wait_until(lambda: not segments(remote.pid))
            os.kill(pid, 0)
        finally:
            os.kill(pid, signal.SIGKILL)


def nothing():
    """A preexec_fn makes CPython run the fork handlers before the exec."""


@pytest.mark.parametrize("how", ["fn", "user"])
def test_a_program_started_after_fork_handlers_pins_nothing(how):
    options = {"preexec_fn": nothing} if how == "fn" else {"user": os.getuid()}
    settle()
    a = sharedmem.full(1000, 5.0)
    data = pickle.dumps(a)
    with subprocess.Popen(["sleep", "600"], **options) as program:
        try:

            def alone():
                sharedmem.collect()
                return program.pid not in pids()

            assert wait_until(alone)
            assert program.poll() is None
            del a
            settle()
            with pytest.raises(StaleHandleError):
                pickle.loads(data)
        finally:
            program.kill()


def test_a_program_that_cannot_be_started_changes_nothing():
    a = sharedmem.full(1000, 5.0)
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            subprocess.Popen(["/no/such/program"], preexec_fn=nothing)
    sharedmem.collect()
    assert (a == 5).all()
    assert len(pids()) == sharedmem.stats()["participants"]


def raw_fork():
    """os.fork without the handlers of Python and of the C library, or None where unknown."""
    libc = ctypes.PyDLL(None)
    if hasattr(libc, "_Fork"):
        return libc._Fork()
    return raw_clone()


def raw_clone():
    number = CLONE.get(MACHINE)
    if number is None:
        pytest.skip("the number of the system call is not known here")
    return ctypes.PyDLL(None).syscall(number, int(signal.SIGCHLD), 0, 0, 0, 0)


@pytest.mark.parametrize("make_child", [raw_fork, raw_clone])
def test_a_child_without_handlers_never_acts_in_its_parents_name(make_child):
    a = sharedmem.full(1000, 3.0)
    result = sharedmem.zeros(4)
    keep = [a]
    data = pickle.dumps(a)
    del a

    def child():
        result[0] = keep[0].sum()
        keep.clear()
        settle()
        own = [sharedmem.full(1000, 7.0) for _ in range(50)]
        result[1] = sum(b.sum() for b in own)
        result[2] = pickle.loads(pickle.dumps(own[0])).sum()
        del own
        settle()

    pid = make_child()
    if pid == 0:
        workers.exit_with(child)
    mine = [sharedmem.full(1000, -1.0) for _ in range(50)]
    assert reap(pid) == 0
    sharedmem.collect()
    more = [sharedmem.full(1000, -2.0) for _ in range(50)]
    assert result.tolist() == [3000, 50 * 7000, 7000, 0]
    assert (keep[0] == 3).all()
    assert all((b == -1).all() for b in mine)
    assert pickle.loads(data).sum() == 3000
    assert os.getpid() in pids()
    del more


@pytest.mark.parametrize("make_child", [raw_fork, raw_clone])
def test_the_parent_of_a_child_without_handlers_dies_first(make_child):
    flag = sharedmem.zeros(4)

    def middle():
        a = sharedmem.full(1000, 3.0)
        parent = os.getpid()
        if make_child() == 0:
            workers.exit_with(lambda: last(a, parent))

    def last(a, parent):
        assert wait_until(lambda: os.getppid() != parent)
        sharedmem.ones(1000)
        flag[0] = 1

    assert in_fork(middle) == 0
    assert wait_until(lambda: flag[0] == 1)
