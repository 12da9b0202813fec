"""Many threads in one process, and in several at once."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.reduction import ForkingPickler

import numpy as np
import workers
from support import TIMEOUT, Remote, check_python, settle

import sharedmem
from sharedmem import StaleHandleError

THREADS = 8


def in_threads(function, number=THREADS):
    """Results of function(i), all started at one moment."""
    barrier = threading.Barrier(number)

    def run(i):
        barrier.wait(TIMEOUT)
        return function(i)

    with ThreadPoolExecutor(number) as executor:
        return [future.result(TIMEOUT) for future in [executor.submit(run, i) for i in range(number)]]


def live():
    settle()
    return sharedmem.stats()["live_blocks"]


def test_create_share_and_drop():
    before = live()
    assert in_threads(lambda i: workers.work_rounds(1000 * i, 300)) == [0] * THREADS
    assert live() == before


def test_one_handle_loaded_by_all():
    a = sharedmem.full(1000, 3.0)
    data = pickle.dumps(a)
    before = live()

    def load(i):
        return sum(pickle.loads(data)[i] for _ in range(500))

    assert in_threads(load) == [1500.0] * THREADS
    assert live() == before
    assert (a == 3).all()


def test_the_last_reference_is_dropped_while_others_load():
    """A load gives the array or says that it is stale; never other bytes."""
    for _ in range(50):
        keep = [sharedmem.full(1000, 3.0)]
        data = pickle.dumps(keep[0])

        def act(i, keep=keep, data=data):
            if i == 0:
                keep.clear()
                return 0
            found = 0
            for _ in range(20):
                other = sharedmem.full(1000, float(-i))
                try:
                    a = pickle.loads(data)
                except StaleHandleError:
                    assert (other == -i).all()
                    continue
                assert (a == 3).all()
                found += 1
            return found

        in_threads(act, 4)
        settle()
        try:
            pickle.loads(data)
        except StaleHandleError:
            continue
        raise AssertionError("still alive without a reference")


def test_views_dropped_by_other_threads():
    before = live()

    def act(i):
        for j in range(200):
            a = sharedmem.full(100 + i, float(j))
            board[i] = [a[1:], memoryview(a), np.asarray(a)]
            taken = board.get((i + 1) % THREADS)
            if taken:
                assert len(set(taken[0].tolist())) == 1
                del taken
        return True

    board = {}
    assert all(in_threads(act))
    board.clear()
    assert live() == before


def test_leases_from_many_threads():
    before = sharedmem.stats()["leases"]
    a = sharedmem.ones(100)

    def act(i):
        total = 0
        for _ in range(300):
            message = bytes(ForkingPickler.dumps([a[i:], a]))
            total += ForkingPickler.loads(message)[0].sum()
        return total

    assert in_threads(act) == [300.0 * (100 - i) for i in range(THREADS)]
    assert sharedmem.stats()["leases"] == before


def test_a_failing_message_in_one_thread_takes_no_lease_of_another():
    a = sharedmem.full(100, 2.0)

    def act(i):
        for _ in range(200):
            if i % 2:
                try:
                    ForkingPickler.dumps([a, lambda: 0])
                except (AttributeError, pickle.PicklingError):
                    continue
                raise AssertionError("pickled a lambda")
            b = sharedmem.full(100, float(i))
            message = bytes(ForkingPickler.dumps(b))
            del b
            assert (ForkingPickler.loads(message) == i).all()
        return True

    before = sharedmem.stats()["leases"]
    assert all(in_threads(act))
    assert sharedmem.stats()["leases"] == before


def test_calls_about_the_arena_while_others_work():
    stop = threading.Event()
    kept = [sharedmem.full(1000, float(i)) for i in range(20)]

    def act(i):
        if i == 0:
            for _ in range(30):
                sharedmem.stats()
                sharedmem.participants()
                sharedmem.collect()
                sharedmem.cleanup()
            stop.set()
            return 0
        wrong = 0
        while not stop.is_set():
            wrong += workers.work_rounds(i, 10)
        return wrong

    assert in_threads(act, 4) == [0] * 4
    assert all((a == i).all() for i, a in enumerate(kept))


def test_threads_in_several_processes_at_once():
    with Remote() as first, Remote("spawn") as second, Remote("unrelated") as third:
        crowd = (first, second, third)
        a = sharedmem.zeros(3)
        for i, remote in enumerate(crowd):
            remote.conn.send((work_in_threads, (a[i : i + 1], 100 * i)))
        assert in_threads(lambda i: workers.work_rounds(i, 100), 4) == [0] * 4
        assert [remote.result() for remote in crowd] == [0, 0, 0]
    assert (a == 1).all()


def work_in_threads(a, first):
    wrong = sum(in_threads(lambda i: workers.work_rounds(first + i, 100), 4))
    a += 1
    return wrong


def test_the_first_use_by_many_threads_at_once():
    code = """
    import threading, sharedmem
    barrier = threading.Barrier(16)
    arrays = []
    def work(i):
        barrier.wait(60)
        arrays.append(sharedmem.full(1000, float(i)))
    threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print(sorted(a[0] for a in arrays) == list(range(16)), sharedmem.stats()["attached_arenas"])
    """
    assert check_python(code, SHAREDMEM_ARENA="new") == "True 1"


def test_threads_that_end_leave_nothing():
    before = live()
    for _ in range(20):
        thread = threading.Thread(target=lambda: [sharedmem.ones(100) for _ in range(100)])
        thread.start()
        thread.join(TIMEOUT)
    assert live() == before
    resident = sharedmem.stats()["mapped_bytes"]
    for _ in range(100):
        thread = threading.Thread(target=lambda: [sharedmem.ones(100) for _ in range(100)])
        thread.start()
        thread.join(TIMEOUT)
    assert sharedmem.stats()["mapped_bytes"] <= resident + 2**22
