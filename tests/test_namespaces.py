"""Participants in other pid, time, IPC and mount namespaces."""

import contextlib
import os
import pickle
import signal
import time

import pytest
import workers
from support import (
    TIMEOUT,
    ask,
    check_python,
    connect_server,
    environment,
    needs_namespaces,
    needs_root,
    run_python,
    segments,
    settle,
    wait_until,
)

import sharedmem
from sharedmem import StaleHandleError

pytestmark = needs_root

PID = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
PID_AND_TIME = ["unshare", "--pid", "--time", "--boottime", "10000000", "--fork", "--kill-child"]
HIDDEN_PROC = ["unshare", "--pid", "--fork", "--kill-child"]


@contextlib.contextmanager
def server(prefix, related=True):
    """(popen, connection) of a server in namespaces of its own."""
    needs_namespaces(*prefix[1:])
    popen, conn = connect_server(prefix, environment(related=related))
    try:
        yield popen, conn
        with contextlib.suppress(OSError):
            conn.send((None, ()))
        popen.wait(TIMEOUT)
    finally:
        conn.close()
        popen.kill()
        popen.wait()


def settle_participants(number):
    """Collects until there are so many participants; whether that came true."""

    def settled():
        sharedmem.collect()
        return sharedmem.stats()["participants"] == number

    return wait_until(settled)


@pytest.mark.parametrize(
    "prefix", [PID, PID_AND_TIME, HIDDEN_PROC], ids=["pid", "pid and time", "pid, proc of the host"]
)
@pytest.mark.parametrize("related", [True, False], ids=["joins", "unrelated"])
def test_a_living_participant_elsewhere_is_never_reaped(prefix, related):
    a = sharedmem.full(1000, 1.0)
    with server(prefix, related) as (_, conn):
        ask(conn, workers.hold_handle, "a", pickle.dumps(a))
        ask(conn, workers.hold_full, "own", 1000, 2.0)
        data = ask(conn, workers.plain_handle, "own")
        theirs = ask(conn, workers.held, "own")
        for _ in range(3):
            sharedmem.collect()
            ask(conn, workers.collect)
            time.sleep(0.11)
        assert pickle.loads(data).sum() == 2000
        ask(conn, workers.store_held, "a", 0, 5.0)
        assert a[0] == 5
        del theirs
        settle()
        sharedmem.collect()
        assert pickle.loads(data).sum() == 2000
        assert ask(conn, workers.total_held, "own") == 2000
    assert (a[1:] == 1).all()


@pytest.mark.parametrize("prefix", [PID, PID_AND_TIME], ids=["pid", "pid and time"])
def test_what_the_dead_held_elsewhere_comes_back(prefix):
    sharedmem.collect()
    number = sharedmem.stats()["participants"]
    with server(prefix) as (popen, conn):
        ask(conn, workers.hold_full, "own", 100_000, 2.0)
        data = ask(conn, workers.plain_handle, "own")
        assert sharedmem.stats()["participants"] == number + 1
        popen.send_signal(signal.SIGKILL)
        popen.wait(TIMEOUT)
        assert settle_participants(number)
        with pytest.raises(StaleHandleError):
            pickle.loads(data)


def test_the_same_small_pids_again_and_again():
    sharedmem.collect()
    number = sharedmem.stats()["participants"]
    a = sharedmem.zeros(100)
    with server(PID) as (_, first):
        ask(first, workers.hold_full, "own", 1000, 2.0)
        data = ask(first, workers.plain_handle, "own")
        for i in range(5):
            with server(PID) as (popen, conn):
                ask(conn, workers.hold_full, "own", 1000, 3.0)
                ask(conn, workers.store, a, i, 1.0)
                popen.kill()
                popen.wait(TIMEOUT)
            sharedmem.collect()
            assert pickle.loads(data).sum() == 2000
            assert ask(first, workers.total_held, "own") == 2000
    assert a.sum() == 5
    assert settle_participants(number)


def test_a_small_shared_tmpfs_does_not_matter(tmp_path):
    needs_namespaces("--mount")
    code = """
    import os, sharedmem, workers
    import multiprocessing
    assert os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize <= 4 << 20
    a = sharedmem.ones(8 << 20)
    b = sharedmem.zeros(64 << 20, "u1", populate=True)
    b[:] = 1
    child = os.fork()
    if child == 0:
        a += 1
        os._exit(0)
    os.waitpid(child, 0)
    print(a.sum() == 16 << 20, int(b.sum()) == 64 << 20)
    """
    said = check_python(code, prefix=["unshare", "--mount"], shell="mount -t tmpfs -o size=4m tmpfs /dev/shm")
    assert said == "True True"


def test_no_shared_tmpfs_at_all():
    needs_namespaces("--mount")
    code = "import sharedmem; print(sharedmem.ones(10**6).sum())"
    said = check_python(
        code, prefix=["unshare", "--mount"], shell="mount -t tmpfs -o ro,size=4k tmpfs /dev/shm"
    )
    assert said == "1000000.0"


USE = """
import multiprocessing, os, pickle, sys
import workers, sharedmem
def main():
    a = sharedmem.zeros((300, 400))
    child = os.fork()
    if child == 0:
        a += 1
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        pool.apply(workers.increment, (a,))
        b = pool.apply(workers.full, (1000, 4.0))
        pool.close()
        pool.join()
    big = sharedmem.ones(5_000_000)
    del big
    again = sharedmem.zeros(5_000_000)
    assert not again.any()
    print(a.sum(), b.sum(), sharedmem.is_shared(a[::2]), sharedmem.stats()["backing"])
main()
"""


@pytest.mark.parametrize(
    "limit", ["shmmax=4194304", "shmmax=1", "shmall=4096", "shmall=0", "shmmni=0", "shmmni=1"]
)
def test_limits_of_system_v_memory(limit):
    needs_namespaces("--ipc")
    name, _, value = limit.partition("=")
    status, out, err = run_python(
        USE, prefix=["unshare", "--ipc"], shell=f"echo {value} > /proc/sys/kernel/{name} || exit 77"
    )
    if status == 77:
        pytest.skip("the limit cannot be set here")
    assert (status, err.decode()) == (0, "")
    assert out.split()[:3] == [b"240000.0", b"4000.0", b"True"]


def test_a_hidden_proc_is_not_a_proof_of_death():
    """With hidepid=2 another user's processes have no entry; here no process has."""
    needs_namespaces("--mount")
    code = """
    import os, pickle, subprocess, sys, sharedmem
    a = sharedmem.ones(1000)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        b = sharedmem.full(1000, 2.0)
        os.write(writer, pickle.dumps(b))
        sys.stdin.read()
        os._exit(int(b.sum() != 2000))
    data = os.read(reader, 1000)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/proc"], check=True)
    for _ in range(3):
        sharedmem.collect()
        kept = [sharedmem.zeros(1000) for _ in range(100)]
    print(pickle.loads(data).sum(), (a == 1).all())
    os.kill(child, 9)
    os.waitpid(child, 0)
    """
    assert check_python(code, prefix=["unshare", "--mount"]) == "2000.0 True"


def test_a_namespace_leaves_nothing_to_the_host():
    needs_namespaces("--ipc")
    code = """
    import os, sharedmem
    a = sharedmem.ones(1000)
    print(os.getpid())
    """
    pid = int(check_python(code, prefix=["unshare", "--ipc"]))
    assert not segments(pid)
    assert os.path.exists("/dev/shm")
