"""What holds without fork: processes by spawn, arrays in queues and pools, deaths, locks, names, files.

Nothing here needs the rest of the tests, so that Windows runs this file alone (.ci/matrix/windows).
"""

import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from multiprocessing.connection import Client, Listener

import numpy as np
import pytest

import sharedmem
from sharedmem import _integrations

context = multiprocessing.get_context("spawn")
LIMIT = 120  # seconds, of what hangs


def _address(a):
    return a.__array_interface__["data"][0]


def _run(target, *args):
    """A process that has ended as it should."""
    process = context.Process(target=target, args=args)
    process.start()
    process.join(LIMIT)
    assert process.exitcode == 0


def _double(a):
    a *= 2


def _row_sum(row):
    return float(row.sum())


def _send(queue, size):
    a = sharedmem.ones(size)
    a[-1] = 7
    queue.put(a)


def _send_and_die(queue, size):
    _send(queue, size)
    queue.close()
    queue.join_thread()
    os._exit(3)


def _hold(connection):
    received = connection.recv()
    own = [sharedmem.full(20_000, k) for k in range(10)]
    connection.send((received.sum(), len(own)))
    connection.recv()


def _take_lock(lock, connection):
    connection.send(lock.acquire())
    connection.recv()


def _put_numbers(queue, count):
    for k in range(count):
        queue.put((k, sharedmem.full(100, k)))


def _kill(process):
    process.kill()
    process.join(LIMIT)


@pytest.mark.parametrize("view", [np.s_[:], np.s_[::2, 3:], np.s_[::-1], np.s_[5]])
def test_a_spawned_process_works_on_the_same_memory(view):
    a = sharedmem.ones((20, 30))
    _run(_double, a[view])
    expected = np.ones((20, 30))
    expected[view] *= 2
    assert (a == expected).all()
    assert type(a) is sharedmem.SharedArray


def test_a_pool_of_spawned_workers_gets_no_copies():
    a = sharedmem.zeros((6, 500_000))
    with context.Pool(2) as pool:
        a[:] = np.arange(6)[:, None]
        assert pool.map(_row_sum, list(a)) == [k * 500_000.0 for k in range(6)]
        pool.map(_double, list(a))
    assert a[5, 0] == 10


@pytest.mark.parametrize("send", [_send, _send_and_die])
@pytest.mark.parametrize("size", [1, 5000, 2_000_000])
def test_a_message_outlives_its_sender(send, size):
    sharedmem.ones(1)  # the arena is this process's, which stays
    queue = context.Queue()
    process = context.Process(target=send, args=(queue, size))
    process.start()
    a = queue.get(timeout=LIMIT)
    process.join(LIMIT)
    assert sharedmem.is_shared(a)
    assert a.sum() == size + 6


def _in_use():
    sharedmem.collect(leases=True)
    found = sharedmem.stats()
    return found["shared_blocks"], found["leases"], found["participants"]


def test_what_killed_processes_held_comes_back():
    gc.collect()
    before = _in_use()  # of tests that ran before this one in the same process
    a = sharedmem.ones(300_000)
    ends = []
    for _ in range(2):
        ours, theirs = context.Pipe()
        process = context.Process(target=_hold, args=(theirs,))
        process.start()
        ours.send(a)
        ends.append((process, ours))
    for process, ours in ends:
        assert ours.recv() == (300_000, 10)
        _kill(process)
    del a
    assert _in_use() == before


def test_a_handle_reaches_a_process_that_was_started_by_other_means():
    a = sharedmem.array(np.arange(6))
    code = "import pickle, sys; a = pickle.loads(bytes.fromhex(sys.argv[1])); a += 1; print(int(a.sum()))"
    environment = {key: text for key, text in os.environ.items() if key != "SHAREDMEM_ARENA"}
    done = subprocess.run(
        [sys.executable, "-c", code, pickle.dumps(a).hex()],
        env=environment, capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "21", done.stderr
    assert a[0] == 1


def test_a_handle_of_memory_that_was_freed_is_stale():
    a = sharedmem.ones(50)
    bytes_ = pickle.dumps(a)
    assert _address(pickle.loads(bytes_)) == _address(a)
    del a
    with pytest.raises(sharedmem.StaleHandleError):
        pickle.loads(bytes_)


@pytest.mark.parametrize("make", [sharedmem.Lock, sharedmem.RLock])
def test_a_lock_of_a_killed_process_is_inherited(make):
    lock = make()
    ours, theirs = context.Pipe()
    process = context.Process(target=_take_lock, args=(lock, theirs))
    process.start()
    assert ours.recv()
    assert not lock.acquire(False)
    _kill(process)
    with pytest.warns(RuntimeWarning):
        assert lock.acquire(True, LIMIT)
    lock.release()
    assert lock.acquire(True, LIMIT)
    lock.release()


def test_a_queue_hands_on_what_a_process_put_before_it_ended():
    queue = sharedmem.Queue()
    _run(_put_numbers, queue, 50)
    for k in range(50):
        number, a = queue.get(timeout=LIMIT)
        assert number == k
        assert (a == k).all()


def _mean_and_rows(rows):
    return float(rows.mean()), rows[:2]


@pytest.mark.parametrize("copy", [True, False])
def test_transport_carries_ordinary_arrays(copy):
    rows = np.arange(2_000_000.0).reshape(4, 500_000)
    with sharedmem.transport(copy=copy):
        with context.Pool(1) as pool:
            mean, first = pool.apply(_mean_and_rows, (rows,))
        counts = sharedmem.stats()["transport"]
    assert mean == rows.mean()
    assert (first == rows[:2]).all()
    assert counts["messages"] >= 1


def _send_by_socket(address, rows):
    with Client(address) as conn:
        conn.send(rows)


def test_an_array_that_transport_finds_in_a_network_connection_is_copied():
    rows = np.arange(500_000.0)
    with sharedmem.transport(), Listener(("localhost", 0)) as listener:
        sender = threading.Thread(target=_send_by_socket, args=(listener.address, rows))
        sender.start()
        with listener.accept() as conn:
            got = conn.recv()
        sender.join()
    assert (got == rows).all()
    assert not sharedmem.is_shared(got)


def test_a_file_is_shared_memory(tmp_path):
    path = tmp_path / "data.npy"
    a = sharedmem.open_memmap(path, mode="w+", shape=(100, 10), dtype="f4")
    a[:] = 1
    _run(_double, a)
    assert (a == 2).all()
    sharedmem.flush(a)
    assert (np.load(path) == 2).all()
    del a


def test_every_hook_for_another_library_can_be_loaded():
    """Even where that library is missing: what cannot be loaded would break that library's import."""
    for module, file, function in _integrations.HOOKS:
        assert callable(getattr(_integrations._file(file), function)), module


def test_what_does_not_fit_is_a_memory_error():
    with pytest.raises(MemoryError, match=r"1\.0 PiB|address space of 32 bit"):
        sharedmem.empty(1 << 50, "u1")
