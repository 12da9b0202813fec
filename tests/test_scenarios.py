"""Longer scenarios of users, which combine what the other files test one by one."""

import contextlib
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
import workers
from support import (
    KINDS,
    QUICKEST,
    START_METHODS,
    TIMEOUT,
    Remote,
    check_python,
    environment,
    private_memory,
    segments,
    settle,
    wait_until,
)

import sharedmem


def maps():
    with open("/proc/self/maps") as file:
        return sum(1 for _ in file)


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_large_image_in_a_fresh_interpreter(protocol):
    a = sharedmem.ones((4000, 4000), "u1")
    data = pickle.dumps(a, protocol)
    assert len(data) < 1000
    code = """
    import pickle, sys
    a = pickle.loads(bytes.fromhex(sys.argv[1]))
    a[::2] += 1
    print(a.sum(dtype=int))
    """
    assert check_python(code, data.hex()) == str(4000 * 4000 * 3 // 2)
    assert a.sum(dtype=int) == 4000 * 4000 * 3 // 2


def test_workers_transform_the_rows_of_one_image(context):
    image = sharedmem.asshared(np.arange(400 * 300, dtype="f4").reshape(400, 300))
    expected = np.asarray(image).copy() + 1
    with context.Pool(2) as pool:
        pool.map_async(workers.increment, [image[i : i + 50] for i in range(0, 400, 50)]).get(TIMEOUT)
        pool.close()
        pool.join()
    assert (image == expected).all()


def test_a_chain_of_workers_hands_an_array_on():
    """Each one drops it as soon as it has sent it; the first ones have ended when it arrives."""
    a = sharedmem.zeros(1000)
    where = a.__array_interface__["data"][0]
    kinds = (*START_METHODS, "subprocess")
    for kind in kinds:
        with Remote(kind) as remote:
            a = remote.call(workers.increment, a)
            settle()
    assert (a == len(kinds)).all()
    assert a.__array_interface__["data"][0] == where


def test_a_pool_that_is_terminated_in_the_middle_of_its_work():
    settle()
    sharedmem.collect()
    before = sharedmem.stats()
    with multiprocessing.get_context(QUICKEST).Pool(3) as pool:
        pool.apply(workers.full, (10, 0.0))  # it has started
        for i in range(200):
            pool.apply_async(workers.full, (10_000, float(i)))
        time.sleep(0.1)
        pool.terminate()
        pool.join()
    del pool
    settle()
    time.sleep(0.05)
    sharedmem.revoke(0)
    sharedmem.collect(leases=True)
    after = sharedmem.stats()
    assert after["leases"] == 0
    assert after["participants"] == before["participants"]
    assert after["live_blocks"] == before["live_blocks"]


def test_control_c_in_a_program_with_children():
    code = """
    import multiprocessing, os, time, workers, sharedmem
    if __name__ == "__main__":
        at_work = sharedmem.zeros(2)
        def work(i):
            at_work[i] = 1
            workers.work_rounds(i, 10**9)
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=work, args=(i,)) for i in range(2)]
        for child in children:
            child.start()
        while not at_work.all():    # an interrupt while a process starts may be lost
            time.sleep(0.01)
        print(os.getpid(), flush=True)
        workers.work_rounds(5, 10**9)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(related=False),
        start_new_session=True,
    ) as process:
        try:
            pid = int(process.stdout.readline())
            assert segments(pid)
            os.killpg(pid, signal.SIGINT)
            process.wait(TIMEOUT)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode in (1, -signal.SIGINT)
    assert wait_until(lambda: not segments(pid))


def test_more_processes_than_there_are_slots():
    """All use what they inherited; to make something new is an error for those without a slot."""
    code = """
    import os, time, sharedmem
    number = 320
    seen, made = sharedmem.zeros(number), sharedmem.zeros(number)
    reader, writer = os.pipe()
    kept = sharedmem.full(1000, 3.0)
    def work(i):
        try:
            own = sharedmem.full(100, float(i))
        except MemoryError as error:
            assert "process" in str(error)
        else:
            assert (own == i).all()
            made[i] = 1
        seen[i] = kept.sum()
        os.close(writer)
        os.read(reader, 1)
        assert kept.sum() == 3000
    children = []
    for i in range(number):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                work(i)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    os.close(writer)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * number
    assert (seen == 3000).all()
    assert made.sum() >= 200
    # Reading an ending process's files in /proc keeps its memory attached for that moment.
    for _ in range(6000):
        sharedmem.collect()
        if sharedmem.stats()["participants"] == 1:
            break
        time.sleep(0.01)
    assert sharedmem.stats()["participants"] == 1
    for i in range(3):
        if os.fork() == 0:
            os._exit(int(sharedmem.full(1000, 2.0).sum() != 2000))
        assert os.wait()[1] == 0
    print(sharedmem.ones(1000).sum(), kept.sum())
    """
    assert check_python(code) == "1000.0 3000.0"


@pytest.mark.parametrize("kind", ["fork", "unrelated"])
def test_many_hand_overs_leave_nothing_behind(kind):
    with Remote(kind) as remote:
        for _ in range(500):
            remote.call(workers.echo, sharedmem.ones(100))
        settle()
        stats, lines, fds = sharedmem.stats(), maps(), descriptors()
        for i in range(3000):
            a = sharedmem.full(100 + i % 50, float(i))
            b = remote.call(workers.echo, a[1:])
            assert b[0] == i
        del a, b
        settle()
        after = sharedmem.stats()
    assert after["leases"] == stats["leases"]
    assert after["live_blocks"] == stats["live_blocks"]
    assert after["mapped_bytes"] <= stats["mapped_bytes"] + 2**22
    assert maps() <= lines + 10
    assert descriptors() <= fds


def test_a_million_arrays_one_after_the_other():
    for _ in range(10_000):
        sharedmem.empty(100)
    gc.collect()
    resident, private, lines = sharedmem.stats()["mapped_bytes"], private_memory(), maps()
    for _ in range(1_000_000):
        sharedmem.empty(100)
    assert sharedmem.stats()["mapped_bytes"] <= resident + 2**21
    assert private_memory() <= private + 2**22
    assert maps() <= lines + 5


def test_many_foreign_arenas_one_after_the_other():
    lines, fds = maps(), descriptors()
    before = sharedmem.stats()["attached_arenas"]
    for i in range(6):
        with Remote("unrelated") as remote:
            a = remote.call(workers.full, 1000, float(i))
        assert (a == i).all()
        del a
        settle()
    assert sharedmem.stats()["attached_arenas"] == before
    assert maps() <= lines + 10
    assert descriptors() <= fds


def test_every_reader_may_end_and_the_next_one_still_attaches():
    a = sharedmem.full(1000, 2.0)
    data = pickle.dumps(a)
    for kind in KINDS:
        with Remote(kind) as remote:
            assert remote.call(workers.total_of_handle, data) == 2000
    assert pickle.loads(data).sum() == 2000


def test_arrays_as_globals_of_a_module_before_fork():
    code = """
    import multiprocessing
    import workers, sharedmem
    TABLE = sharedmem.full((100, 100), 2.0)
    VIEW = TABLE[::2].T
    def work(i):
        TABLE[i, i] = i
        return VIEW[i // 2, i // 2] * 0 + i
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(work, range(50)) == list(range(50))
        pool.close()
        pool.join()
    print(TABLE.diagonal()[:50].sum())
    """
    assert check_python(code) == str(float(sum(range(50))))


def test_threads_and_processes_around_one_queue():
    context = multiprocessing.get_context("spawn")
    source, target = context.Queue(), context.Queue()
    children = [context.Process(target=workers.forward_many, args=(source, target, 20)) for _ in range(2)]
    for child in children:
        child.start()

    def produce(first):
        for i in range(first, first + 20):
            source.put(sharedmem.full(1000, float(i)))

    threads = [threading.Thread(target=produce, args=(first,)) for first in (0, 20)]
    for thread in threads:
        thread.start()
    values = set()
    for _ in range(40):
        a = target.get(timeout=TIMEOUT)
        assert (a == a[0]).all()
        values.add(int(a[0]))
    assert values == set(range(40))
    for thread in threads:
        thread.join()
    for child in children:
        child.join(TIMEOUT)
        assert child.exitcode == 0
        child.close()
    for queue in (source, target):
        queue.close()
        queue.join_thread()


def test_plain_arrays_are_not_changed_by_the_library():
    code = """
    import numpy as np
    before = dict(vars(np.ndarray)), np.ndarray.__reduce_ex__, np.empty, np.load
    import sharedmem
    a = sharedmem.ones(3)
    assert before == (dict(vars(np.ndarray)), np.ndarray.__reduce_ex__, np.empty, np.load)
    b = np.ones(3)
    assert type(b) is np.ndarray and b.flags.owndata
    """
    check_python(code)
