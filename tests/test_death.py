"""Processes that end in every way: what they alone held is freed, and nothing else."""

import multiprocessing
import os
import pickle
import signal
import sys
import time

import pytest
import workers
from support import (
    KINDS,
    MACHINE,
    QUICKEST,
    START_METHODS,
    Remote,
    RemoteError,
    check_python,
    join,
    reap,
    run_python,
    segments,
    settle,
    state_of,
    wait_until,
)

import sharedmem
from sharedmem import StaleHandleError

WAYS = [
    "return",
    "sys.exit",
    "os._exit",
    "exception",
    "abort",
    "segfault",
    "kill",
    "SIGTERM",
    "SIGINT",
    "SIGSEGV",
    "SIGBUS",
    "SIGHUP",
]

# x86-64 and the generic numbering
EXIT_OF_ONE_THREAD = {"x86_64": 60, "aarch64": 93, "i386": 1}


def pids():
    return {row["pid"] for row in sharedmem.participants()}


def end(remote, way):
    """Ends a worker in some way and waits for that."""
    if way != "return":
        remote.conn.send((workers.die, (way,)))
    else:
        remote.conn.send((None, ()))
    return remote.wait()


@pytest.mark.parametrize("kind", START_METHODS)
@pytest.mark.parametrize("way", WAYS)
def test_survivors_keep_what_they_share_and_get_the_rest_back(kind, way):
    a = sharedmem.full(1000, 1.0)
    with Remote(kind) as remote:
        remote.call(workers.hold, "a", a)
        remote.call(workers.hold_full, "own", 3_000_000, 2.0)
        remote.call(workers.hold_full, "small", 100, 3.0)
        remote.call(workers.hold_full, "both", 1000, 4.0)
        both = remote.call(workers.held, "both")
        data = remote.call(workers.plain_handle, "own")
        assert pickle.loads(data)[5] == 2
        settle()
        assert remote.pid in pids()
        end(remote, way)
        sharedmem.collect()
        assert remote.pid not in pids()
        assert sharedmem.collect() == 0
        with pytest.raises(StaleHandleError):
            pickle.loads(data)
    assert (a == 1).all()
    assert (both == 4).all()
    both[:] = a
    again = [sharedmem.full(1000, float(i)) for i in range(20)]
    assert (both == 1).all()
    assert all((b == i).all() for i, b in enumerate(again))


@pytest.mark.parametrize("kind", ["subprocess", "unrelated"])
@pytest.mark.parametrize("way", ["return", "os._exit", "kill", "segfault"])
def test_interpreters_that_multiprocessing_did_not_start(kind, way):
    a = sharedmem.full(1000, 1.0)
    data = pickle.dumps(a)
    with Remote(kind) as remote:
        remote.call(workers.hold_handle, "a", data)
        remote.call(workers.hold_full, "both", 1000, 4.0)
        both = remote.call(workers.held, "both")
        end(remote, way)
    sharedmem.collect()
    assert remote.pid not in pids()
    assert (a == 1).all()
    assert (both == 4).all()
    both[0] = 9
    assert pickle.loads(pickle.dumps(both))[0] == 9
    del a
    settle()
    with pytest.raises(StaleHandleError):
        pickle.loads(data)


@pytest.mark.parametrize("kind", START_METHODS)
def test_memory_of_the_dead_is_used_again(kind):
    size = 8 * 2**20
    peak = None
    for _ in range(4):
        with Remote(kind) as remote:
            remote.call(workers.hold_full, "own", size, 1)
            remote.kill()
        sharedmem.collect()
        sharedmem.cleanup()
        mapped = sharedmem.stats()["mapped_bytes"]
        peak = peak or mapped
        assert mapped < peak + 8 * size
    assert sharedmem.stats()["participants"] == len(pids())


def test_a_dead_process_is_noticed_without_a_call():
    """A process that joins looks for dead ones first, and reuses the slot of one that it finds."""
    with Remote("spawn") as first:
        first.call(workers.hold_full, "own", 1000, 1.0)
        first.kill()
    time.sleep(0.15)
    with Remote("spawn") as second:
        second.call(workers.hold_full, "own", 1000, 1.0)
        assert first.pid not in pids()


def test_eight_at_once():
    a = sharedmem.ones(1000)
    crowd = [Remote() for _ in range(8)]
    try:
        for remote in crowd:
            remote.call(workers.hold, "a", a)
            remote.call(workers.hold_full, "own", 100_000, 2.0)
        data = crowd[0].call(workers.plain_handle, "own")
        for remote in crowd:
            workers.kill(remote.pid)
        for remote in crowd:
            remote.wait()
    finally:
        for remote in crowd:
            remote.__exit__(KeyError, None, None)
    sharedmem.collect()
    assert not {remote.pid for remote in crowd} & pids()
    assert (a == 1).all()
    with pytest.raises(StaleHandleError):
        pickle.loads(data)


def test_the_parent_dies_and_its_children_go_on(tmp_path):
    """Two children of a process that is killed still share what it made."""
    code = """
    import os, signal, sys, time
    import sharedmem
    (done,) = sys.argv[1:]
    a = sharedmem.zeros(1000)
    parent = os.getpid()
    print(parent, flush=True)
    def wait(condition):
        for _ in range(6000):
            if condition():
                return
            time.sleep(0.01)
        os._exit(1)
    first = os.fork()
    if first == 0:
        wait(lambda: os.getppid() != parent)
        sharedmem.collect()
        a[0] = 5
        b = sharedmem.full(1000, 2.0)
        wait(lambda: a[1] == 6)
        assert (b == 2).all()
        open(done, "w").close()
        os._exit(0)
    if os.fork() == 0:
        wait(lambda: a[0] == 5)
        sharedmem.collect()
        a[1] = 6
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    status, out, err = run_python(code, tmp_path / "done")
    assert (status, err) == (-signal.SIGKILL, b"")
    assert wait_until((tmp_path / "done").exists)
    assert wait_until(lambda: not segments(int(out)))


@pytest.mark.parametrize("way", ["kill", "segfault", "os._exit", "return"])
def test_nothing_is_left_when_the_last_one_goes(way):
    with Remote("unrelated") as remote:
        remote.call(workers.hold_full, "a", 1_000_000, 1.0)
        assert segments(remote.pid)
        end(remote, way)
    assert wait_until(lambda: not segments(remote.pid))


def test_a_whole_tree_killed_at_once():
    code = """
    import os, signal, time
    import sharedmem
    a = sharedmem.zeros((8, 2**25), "u1")
    print(os.getpid(), sharedmem.stats()["segments"], flush=True)
    for i in range(1, 8):
        if os.fork() == 0:
            own = sharedmem.ones(2**20, "u1")
            a[i] = 1
            time.sleep(600)
    a[0] = 1
    while not a[:, -1].all():
        time.sleep(0.01)
    os.killpg(0, signal.SIGKILL)
    """
    status, out, err = run_python(code)
    assert (status, err) == (-signal.SIGKILL, b"")
    pid, made = map(int, out.split())
    assert made >= 1
    assert wait_until(lambda: not segments(pid))


def test_a_stopped_process_is_not_dead():
    with Remote("spawn") as remote:
        remote.call(workers.hold_full, "a", 1000, 5.0)
        data = remote.call(workers.plain_handle, "a")
        remote.signal(signal.SIGSTOP)
        assert wait_until(lambda: state_of(remote.pid) in "tT")
        for _ in range(3):
            sharedmem.collect()
            sharedmem.collect(leases=True)
            time.sleep(0.11)
        assert [row["state"] for row in sharedmem.participants() if row["pid"] == remote.pid] == ["active"]
        assert pickle.loads(data).sum() == 5000
        remote.signal(signal.SIGCONT)
        assert remote.call(workers.total_held, "a") == 5000
        remote.call(workers.hold_full, "b", 1000, 6.0)
        assert remote.call(workers.total_held, "b") == 6000


def test_a_zombie_is_dead():
    a = sharedmem.zeros(10)
    child = os.fork()
    if child == 0:
        workers.exit_with(lambda: (workers.hold_full("own", 100_000, 2.0), workers.store(a, 0, 1.0)))
    try:
        assert wait_until(lambda: state_of(child) == "Z")
        assert a[0] == 1
        sharedmem.collect()
        assert child not in pids()
        assert state_of(child) == "Z"
    finally:
        assert reap(child) == 0


def test_a_process_whose_main_thread_has_ended_lives():
    if MACHINE not in EXIT_OF_ONE_THREAD:
        pytest.skip("the number of the system call is not known here")
    a = sharedmem.zeros(10)
    child = os.fork()
    if child == 0:
        workers.exit_with(lambda: outlive_main_thread(a, EXIT_OF_ONE_THREAD[MACHINE]))
    try:
        assert wait_until(lambda: state_of(child) == "Z" and a[0] == 1)
        for _ in range(3):
            sharedmem.collect()
            time.sleep(0.11)
        assert child in pids()
        a[1] = 1
        assert wait_until(lambda: a[2] == 1000)
    finally:
        os.kill(child, signal.SIGKILL)
        assert reap(child) == -signal.SIGKILL
    sharedmem.collect()
    assert child not in pids()


def outlive_main_thread(a, number):
    """In a child: the main thread ends, another one still uses its array."""
    import ctypes
    import threading

    own = sharedmem.ones(1000)

    def go_on():
        a[0] = 1
        wait_until(lambda: a[1] == 1)
        more = sharedmem.ones(1000)
        a[2] = own.sum()
        del more
        time.sleep(600)

    threading.Thread(target=go_on).start()
    ctypes.CDLL(None).syscall(number, 0)


def test_exec_without_leaving():
    """The pid is still alive, but it runs another program."""
    with Remote("spawn") as remote:
        remote.call(workers.hold_full, "own", 100_000, 2.0)
        data = remote.call(workers.plain_handle, "own")
        assert remote.pid in pids()
        remote.conn.send((workers.become_sleep, ()))
        assert wait_until(lambda: b"sleep" in command(remote.pid))

        def noticed():
            sharedmem.collect()
            return remote.pid not in pids()

        assert wait_until(noticed)
        assert state_of(remote.pid) in "SR"
        with pytest.raises(StaleHandleError):
            pickle.loads(data)
        remote.kill()


def command(pid):
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()


def test_a_worker_that_dies_with_a_task_does_not_stop_the_others():
    with Remote() as first, Remote("spawn") as second:
        first.call(workers.hold_full, "a", 1000, 1.0)
        a = first.call(workers.held, "a")
        second.call(workers.hold, "a", a)
        end(first, "kill")
        second.call(workers.store_held, "a", 0, 2.0)
        assert a[0] == 2
        second.call(workers.hold_full, "b", 1000, 1.0)
        # The dead process held nothing alone. On Windows warm memory that it had taken may count as well.
        assert second.call(workers.collect) <= (2**21 if sys.platform == "win32" else 0)
        assert first.pid not in pids()
        assert a[0] == 2
        assert second.call(workers.total_held, "b") == 1000


def test_worker_killed_in_the_middle_of_its_work():
    """SIGKILL at moments chosen at random, again and again; no other process is affected."""
    a = sharedmem.full(1000, 7.0)
    for i in range(12):
        child = os.fork()
        if child == 0:
            workers.exit_with(lambda i=i: [workers.work_rounds(i, 200) for _ in range(10_000)])
        time.sleep(0.01 + 0.013 * i)
        os.kill(child, signal.SIGKILL)
        assert reap(child) == -signal.SIGKILL
        assert workers.work_rounds(i, 50) == 0
    sharedmem.collect()
    assert len(pids()) == sharedmem.stats()["participants"]
    assert (a == 7).all()


def test_daemonic_processes_at_the_end_of_their_parent():
    code = """
    import multiprocessing, os, workers, sharedmem
    context = multiprocessing.get_context("fork")
    a = sharedmem.ones(1000)
    child = context.Process(target=workers.serve, args=(context.Pipe()[0],), daemon=True)
    child.start()
    print(os.getpid())
    """
    pid = int(check_python(code))
    assert wait_until(lambda: not segments(pid))


@pytest.mark.parametrize("kind", KINDS)
def test_an_exception_in_a_worker_leaves_nothing_behind(kind):
    settle()
    before = sharedmem.stats()
    with Remote(kind) as remote:
        a = sharedmem.ones(10)
        with pytest.raises(RemoteError, match="IndexError"):
            remote.call(workers.store, a, 100, 1.0)
        assert remote.call(workers.total, a) == 10
    del a
    settle()
    sharedmem.collect()
    after = sharedmem.stats()
    assert (after["live_blocks"], after["leases"]) == (before["live_blocks"], before["leases"])


def test_an_exiting_process_frees_what_it_held():
    a = sharedmem.ones(1000)
    worker = multiprocessing.get_context(QUICKEST).Process(target=workers.hold_full, args=("a", 1000, 1.0))
    worker.start()
    pid = worker.pid
    assert join(worker) == [0]
    sharedmem.collect()
    assert pid not in pids()
    assert a.sum() == 1000
