"""fork at any moment, from any thread, in generations."""

import os
import pickle
import signal
import threading
import time

import pytest
import workers
from support import TIMEOUT, in_fork, join, reap, settle, wait_until

import sharedmem
from sharedmem import StaleHandleError


def pids():
    return {row["pid"] for row in sharedmem.participants()}


def test_writes_are_seen_both_ways():
    a = sharedmem.zeros(10)

    def child():
        a[0] = 1
        assert wait_until(lambda: a[1] == 2)
        a[2] = 3

    pid = os.fork()
    if pid == 0:
        workers.exit_with(child)
    assert wait_until(lambda: a[0] == 1)
    a[1] = 2
    assert reap(pid) == 0
    assert a[2] == 3


@pytest.mark.parametrize("way", ["return", "sys.exit", "os._exit", "SIGKILL", "segfault", "exception"])
def test_the_child_ends_and_the_parents_arrays_live(way):
    a = sharedmem.full(1000, 3.0)
    data = pickle.dumps(a)

    def child():
        a[0] = 4
        if way != "return":
            workers.die(way)

    pid = os.fork()
    if pid == 0:
        workers.exit_with(child)
    reap(pid)
    sharedmem.collect()
    assert pid not in pids()
    others = [sharedmem.zeros(1000) for _ in range(10)]
    assert a[0] == 4
    assert (a[1:] == 3).all()
    assert (pickle.loads(data)[1:] == 3).all()
    del others


def test_the_parent_drops_and_the_child_continues():
    flag = sharedmem.zeros(4)
    a = sharedmem.full(1000, 3.0)
    data = pickle.dumps(a)
    keep = [a]

    def child():
        assert wait_until(lambda: flag[0] == 1)
        sharedmem.collect()
        others = [sharedmem.zeros(1000) for _ in range(20)]
        assert (keep[0] == 3).all()
        flag[1] = 1
        assert wait_until(lambda: flag[2] == 1)
        del others[:]
        keep.clear()
        settle()

    pid = os.fork()
    if pid == 0:
        del a
        workers.exit_with(child)
    del a
    keep.clear()
    settle()
    others = [sharedmem.ones(1000) for _ in range(20)]
    flag[0] = 1
    assert wait_until(lambda: flag[1] == 1)
    assert pickle.loads(data).sum() == 3000
    flag[2] = 1
    assert reap(pid) == 0
    sharedmem.collect()
    with pytest.raises(StaleHandleError):
        pickle.loads(data)
    assert all((other == 1).all() for other in others)


def test_the_child_drops_and_the_parent_continues():
    a = sharedmem.full(1000, 3.0)
    keep = [a]
    data = pickle.dumps(a)
    del a

    def child():
        keep.clear()
        settle()
        for _ in range(20):
            assert sharedmem.full(1000, 9.0).sum() == 9000

    assert in_fork(child) == 0
    assert (keep[0] == 3).all()
    assert pickle.loads(data).sum() == 3000


def test_memory_of_both_is_distinct_after_a_fork():
    """What either makes afterwards overlaps nothing of the other."""
    warm = [sharedmem.ones(1000) for _ in range(50)]
    del warm
    flag = sharedmem.zeros(2)

    def child():
        mine = [sharedmem.full(1000, float(i)) for i in range(200)]
        flag[0] = 1
        assert wait_until(lambda: flag[1] == 1)
        assert all((a == i).all() for i, a in enumerate(mine))

    pid = os.fork()
    if pid == 0:
        workers.exit_with(child)
    assert wait_until(lambda: flag[0] == 1)
    mine = [sharedmem.full(1000, -1.0) for i in range(200)]
    flag[1] = 1
    assert reap(pid) == 0
    assert all((a == -1).all() for a in mine)


def test_arrays_never_shared_before_the_fork_belong_to_both():
    arrays = [sharedmem.full(10 * i + 1, float(i)) for i in range(200)]
    big = sharedmem.full(500_000, 5.0)

    def child():
        for i, a in enumerate(arrays):
            assert (a == i).all()
            a += 1
        big[0] = 6
        arrays.clear()
        settle()

    assert in_fork(child) == 0
    assert all((a == i + 1).all() for i, a in enumerate(arrays))
    assert big[0] == 6
    sharedmem.collect()
    fresh = [sharedmem.zeros(10 * i + 1) for i in range(200)]
    assert all((a == i + 1).all() for i, a in enumerate(arrays))
    del fresh


def test_generations():
    a = sharedmem.zeros(10)

    def descend(depth):
        own = sharedmem.full(1000, float(depth))
        a[depth] = depth
        if depth < 6:
            assert in_fork(lambda: descend(depth + 1)) == 0
        assert (own == depth).all()

    assert in_fork(lambda: descend(1)) == 0
    assert a.tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 0, 0]
    sharedmem.collect()
    assert len(pids()) == sharedmem.stats()["participants"]


def test_a_grandchild_outlives_the_generation_between():
    a = sharedmem.zeros(10)

    def child():
        own = sharedmem.full(1000, 8.0)
        middle = os.getpid()
        if os.fork() == 0:
            workers.exit_with(lambda: grandchild(own, middle))

    def grandchild(own, parent):
        assert wait_until(lambda: os.getppid() != parent)
        sharedmem.collect()
        more = sharedmem.ones(1000)
        a[0] = own.sum() + more.sum()

    assert in_fork(child) == 0
    assert wait_until(lambda: a[0] == 9000)


def test_many_children_at_once():
    a = sharedmem.zeros(40)
    children = []
    for i in range(40):
        pid = os.fork()
        if pid == 0:
            workers.exit_with(lambda i=i: a.__setitem__(i, workers.work_rounds(i, 20) + 1))
        children.append(pid)
    assert [reap(pid) for pid in children] == [0] * 40
    assert (a == 1).all()
    sharedmem.collect()
    assert not pids() & set(children)


def test_fork_while_other_threads_allocate():
    stop = threading.Event()
    wrong = []

    def work(number):
        while not stop.is_set():
            wrong.append(workers.work_rounds(number, 10))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    try:
        codes = [in_fork(lambda: workers.work_rounds(50, 20) and os._exit(2)) for _ in range(20)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert codes == [0] * 20
    assert wrong
    assert not any(wrong)


def test_fork_from_another_thread():
    a = sharedmem.zeros(10)
    codes = []

    def from_thread():
        own = sharedmem.full(1000, 2.0)

        def child():
            a[0] = own.sum()
            assert workers.work_rounds(3, 20) == 0

        codes.append(in_fork(child))

    thread = threading.Thread(target=from_thread)
    thread.start()
    thread.join(TIMEOUT)
    assert codes == [0]
    assert a[0] == 2000


def test_leases_taken_before_a_fork():
    from multiprocessing.reduction import ForkingPickler

    data = bytes(ForkingPickler.dumps(sharedmem.full(1000, 3.0)))
    settle()

    def child():
        assert pickle.loads(data).sum() == 3000

    assert in_fork(child) == 0


def test_multiprocessing_children_of_children():
    from multiprocessing import get_context

    a = sharedmem.zeros(10)
    worker = get_context("fork").Process(target=spawn_from_child, args=(a,))
    worker.start()
    assert join(worker) == [0]
    assert a.tolist() == [1.0] * 10


def spawn_from_child(a):
    from multiprocessing import get_context

    worker = get_context("spawn").Process(target=workers.increment, args=(a,))
    worker.start()
    worker.join(TIMEOUT)
    assert worker.exitcode == 0


def test_fork_before_the_first_use():
    from support import check_python

    code = """
    import os, sharedmem
    if os.fork() == 0:
        a = sharedmem.ones(1000)
        os._exit(int(a.sum() != 1000))
    assert os.wait()[1] == 0
    a = sharedmem.full(1000, 2.0)
    if os.fork() == 0:
        a += 1
        os._exit(0)
    assert os.wait()[1] == 0
    print(a.sum())
    """
    assert check_python(code) == "3000.0"


def test_a_child_that_is_stopped_right_after_the_fork():
    keep = [sharedmem.full(1000, 3.0)]

    def child():
        os.kill(os.getpid(), signal.SIGSTOP)
        assert keep[0].sum() == 3000

    pid = os.fork()
    if pid == 0:
        workers.exit_with(child)
    data = pickle.dumps(keep[0])
    assert os.waitpid(pid, os.WUNTRACED)[0] == pid
    keep.clear()
    settle()
    for _ in range(3):
        sharedmem.collect()
        time.sleep(0.11)
    others = [sharedmem.zeros(1000) for _ in range(20)]
    assert pickle.loads(data).sum() == 3000
    os.kill(pid, signal.SIGCONT)
    assert reap(pid) == 0
    del others
