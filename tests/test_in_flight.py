"""Unread messages: what multiprocessing sends keeps its memory until it is loaded."""

import multiprocessing
import os
import pickle
import signal
import time
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import workers
from support import QUICKEST, START_METHODS, TIMEOUT, Remote, dumps, join, needs_64_bit, settle, wait_until

import sharedmem
from sharedmem import StaleHandleError


def leases():
    return sharedmem.stats()["leases"]


@pytest.fixture(autouse=True)
def leases_are_settled():
    settle()
    before = leases()
    yield
    settle()
    assert wait_until(lambda: leases() <= before), f"{leases()} leases, {before} before the test"


def test_the_sender_may_drop_the_array():
    a = sharedmem.full(1000, 3.0)
    data = dumps(a)
    del a
    settle()
    others = [sharedmem.zeros(1000) for _ in range(10)]
    a = pickle.loads(data)
    assert (a == 3).all()
    assert not any(np.shares_memory(a, other) for other in others)


def test_a_plain_pickle_takes_no_lease():
    a = sharedmem.ones(1000)
    before = leases()
    data = pickle.dumps(a)
    assert leases() == before
    del a
    settle()
    with pytest.raises(StaleHandleError):
        pickle.loads(data)


def test_counts_of_what_is_in_flight():
    before = sharedmem.stats()
    a = sharedmem.ones(100_000)
    first, second = dumps(a), dumps(a[5:])
    during = sharedmem.stats()
    assert during["leases"] == before["leases"] + 2
    assert during["bytes_in_flight"] >= before["bytes_in_flight"] + a.nbytes
    pickle.loads(first)
    assert leases() == before["leases"] + 1
    pickle.loads(second)
    after = sharedmem.stats()
    assert after["leases"] == before["leases"]
    assert after["bytes_in_flight"] == before["bytes_in_flight"]


def test_each_message_has_a_lease_of_its_own():
    a = sharedmem.full(1000, 2.0)
    messages = [dumps(a[i:]) for i in range(10)]
    del a
    settle()
    for i, message in enumerate(messages):
        got = pickle.loads(message)
        assert got.sum() == 2 * (1000 - i)
        del got
        settle()
    with pytest.raises(StaleHandleError):
        pickle.loads(messages[0])


def test_bytes_loaded_again_give_the_array_while_it_lives():
    data = dumps(sharedmem.full(1000, 4.0))
    settle()
    a = pickle.loads(data)
    b = pickle.loads(data)
    assert np.shares_memory(a, b)
    del a
    settle()
    assert (b == 4).all()
    del b
    settle()
    with pytest.raises(StaleHandleError):
        pickle.loads(data)


def test_bytes_loaded_again_do_not_consume_another_messages_lease():
    data = dumps(sharedmem.full(1000, 4.0))
    a = pickle.loads(data)
    other = dumps(a)
    pickle.loads(data)
    pickle.loads(data)
    del a
    settle()
    assert (pickle.loads(other) == 4).all()


def test_many_leases_at_once():
    before = leases()
    a = sharedmem.ones(100)
    messages = [dumps(a[i % 100 :]) for i in range(20_000)]
    assert leases() == before + 20_000
    del a
    settle()
    assert all(pickle.loads(message)[0] == 1 for message in reversed(messages))
    assert leases() == before


FAILING = {
    "after the array": lambda a: (a, lambda: 0),
    "before the array": lambda a: (lambda: 0, a),
    "several arrays": lambda a: ([a, a[1:], {"a": a.T}], lambda: 0),
}


@pytest.mark.parametrize("order", FAILING)
def test_a_message_that_cannot_be_pickled_gives_its_leases_back(order):
    a = sharedmem.ones((10, 10))
    before = leases()
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        ForkingPickler.dumps(FAILING[order](a))
    assert leases() == before
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
            ours.send(FAILING[order](a))
        assert leases() == before
        ours.send(a)
        assert theirs.recv().sum() == 100
    data = dumps(a)
    assert leases() == before + 1
    del a
    assert pickle.loads(data).sum() == 100


def test_a_queue_whose_feeder_cannot_pickle_gives_the_lease_back(capfd):
    queue = multiprocessing.Queue()
    a = sharedmem.full(1000, 3.0)
    before = leases()
    for _ in range(5):
        queue.put((a, lambda: 0))
    queue.put(a)
    del a
    assert (queue.get(timeout=TIMEOUT) == 3).all()
    queue.close()
    queue.join_thread()
    assert leases() == before
    assert "lambda" in capfd.readouterr().err


def test_a_pool_task_that_cannot_be_pickled_gives_the_lease_back():
    a = sharedmem.ones(1000)
    before = leases()
    with multiprocessing.get_context(QUICKEST).Pool(1) as pool:
        with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
            pool.apply_async(workers.echo, ((a, lambda: 0),)).get(TIMEOUT)
        assert pool.apply_async(workers.total, (a,)).get(TIMEOUT) == 1000
        pool.close()
        pool.join()
    assert leases() == before


def test_an_error_inside_pickling_another_object_gives_the_lease_back():
    class Broken:
        def __reduce__(self):
            raise KeyError("broken")

    a = sharedmem.ones(1000)
    before = leases()
    with pytest.raises(KeyError):
        ForkingPickler.dumps([a, Broken()])
    assert leases() == before


def test_pickles_within_pickles():
    class Nested:
        def __init__(self, array):
            self.array = array

        def __reduce__(self):
            return bytes, (dumps(self.array),)

    a = sharedmem.ones(10)
    outer, inner = pickle.loads(dumps([a, Nested(a[5:])]))
    del a
    settle()
    assert outer.sum() == 10
    assert pickle.loads(inner).sum() == 5


def test_put_then_drop(context):
    queue = context.Queue()
    a = sharedmem.full(1000, 3.0)
    queue.put(a)
    queue.put(a[500:])
    del a
    settle()
    other = context.Queue()
    worker = context.Process(target=workers.forward, args=(queue, other))
    worker.start()
    assert other.get(timeout=TIMEOUT).sum() == 3000
    assert queue.get(timeout=TIMEOUT).sum() == 1500
    assert join(worker) == [0]
    for each in (queue, other):
        each.close()
        each.join_thread()


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue"])
def test_a_worker_that_sends_and_ends(context, kind):
    queue = getattr(context, kind)()
    worker = context.Process(target=workers.put_full, args=(queue, 1000, 3.0))
    worker.start()
    assert join(worker) == [0]
    sharedmem.collect()
    a = queue.get()
    assert (a == 3).all()
    queue.close()
    if kind == "Queue":
        queue.join_thread()


@pytest.mark.parametrize("way", [workers.send_full_and_die, workers.send_full_and_exit_hard])
def test_a_worker_that_sends_and_is_killed(context, way):
    ours, theirs = context.Pipe()
    worker = context.Process(target=way, args=(theirs, (30, 40), 3.0))
    worker.start()
    theirs.close()
    status = join(worker)[0]
    assert status == 0 if way is workers.send_full_and_exit_hard else workers.was_killed(status)
    for _ in range(3):
        sharedmem.collect()
        time.sleep(0.15)
    a = ours.recv()
    ours.close()
    assert (a == 3).all()
    assert a.shape == (30, 40)


def test_results_of_pool_workers_that_have_ended(context):
    with context.Pool(1, maxtasksperchild=1) as pool:
        results = [pool.apply_async(workers.full, (1000, float(i))) for i in range(3)]
        pool.close()
        pool.join()
    sharedmem.collect()
    assert [result.get(TIMEOUT).sum() for result in results] == [0, 1000, 2000]


def test_process_arguments_of_a_parent_that_drops_them(context):
    queue = context.SimpleQueue()
    a = sharedmem.full(1000, 6.0)
    worker = context.Process(target=workers.put, args=(queue, a))
    worker.start()
    del a
    assert queue.get().sum() == 6000
    assert join(worker) == [0]
    queue.close()


def test_revoke_frees_unread_messages():
    settle()
    before = sharedmem.stats()
    data = dumps(sharedmem.ones(100_000))
    settle()
    assert sharedmem.revoke(3600) == 0
    assert leases() == before["leases"] + 1
    time.sleep(0.05)
    assert sharedmem.revoke(0) == 1 + before["leases"]
    after = sharedmem.stats()
    assert after["leases"] == 0
    assert after["bytes_in_flight"] == 0
    assert after["live_blocks"] == before["live_blocks"]
    with pytest.raises(StaleHandleError):
        pickle.loads(data)


def test_revoke_leaves_arrays_alone():
    a = sharedmem.full(1000, 2.0)
    data = dumps(a)
    time.sleep(0.05)
    assert sharedmem.revoke(0) >= 1
    assert (a == 2).all()
    assert np.shares_memory(pickle.loads(data), a)


def test_revoke_of_a_queue_without_readers():
    before = leases()
    queue = multiprocessing.Queue()
    for i in range(50):
        queue.put(sharedmem.full(1000, float(i)))
    assert wait_until(lambda: leases() == before + 50)
    time.sleep(0.05)
    assert sharedmem.revoke(0) >= 50
    queue.close()
    queue.join_thread()


def test_collect_never_takes_a_living_senders_lease():
    data = dumps(sharedmem.full(1000, 5.0))
    settle()
    for _ in range(3):
        assert sharedmem.collect() == 0
        sharedmem.collect(leases=True)
        sharedmem.cleanup()
        time.sleep(0.11)
    assert (pickle.loads(data) == 5).all()


def test_a_dead_senders_lease_can_be_taken_back_by_request():
    before = leases()
    with Remote("spawn") as remote:
        data = bytes.fromhex(remote.call(workers.leased_as_hex, 100_000, 2.0))
        kept = bytes.fromhex(remote.call(workers.leased_as_hex, 1000, 3.0))
        assert leases() == before + 2
        remote.kill()
    sharedmem.collect()
    assert (pickle.loads(kept) == 3).all()
    assert leases() == before + 1
    sharedmem.collect(leases=True)
    assert leases() == before
    with pytest.raises(StaleHandleError):
        pickle.loads(data)


def test_a_message_lost_with_its_receiver():
    before = leases()
    with Remote("spawn") as remote:
        os.kill(remote.pid, signal.SIGSTOP)
        remote.conn.send((workers.hold, ("a", sharedmem.ones(1000))))
        remote.kill()
    sharedmem.collect()
    assert leases() == before


@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_worker_that_starts_after_the_message_was_made(start_method):
    data = dumps(sharedmem.full(1000, 7.0))
    settle()
    with Remote(start_method) as remote:
        assert remote.call(workers.total_of_handle, data) == 7000


def test_a_message_that_another_process_has_read_cannot_be_read_again():
    a = sharedmem.full(1000, 2.0)
    data = dumps(a)
    del a
    with Remote() as remote:
        assert remote.call(workers.total_of_handle, data) == 2000
    settle()
    with pytest.raises(StaleHandleError):
        pickle.loads(data)


def test_whose_messages_are_in_flight_and_since_when():
    with Remote("spawn") as remote:
        data = bytes.fromhex(remote.call(workers.leased_as_hex, 100_000, 2.0))
        (theirs,) = [p for p in sharedmem.participants() if p["pid"] == remote.pid]
        assert theirs["leases"] == 1
        assert theirs["bytes_in_flight"] >= 800_000
        first = theirs["oldest_in_flight"]
        time.sleep(0.05)
        (theirs,) = [p for p in sharedmem.participants() if p["pid"] == remote.pid]
        assert theirs["oldest_in_flight"] >= first + 0.05
        assert sharedmem.stats()["oldest_in_flight"] >= theirs["oldest_in_flight"]
        assert pickle.loads(data)[0] == 2
        (theirs,) = [p for p in sharedmem.participants() if p["pid"] == remote.pid]
        assert (theirs["leases"], theirs["bytes_in_flight"], theirs["oldest_in_flight"]) == (0, 0, 0)


@needs_64_bit
def test_a_memory_error_lists_messages_in_flight():
    a = sharedmem.ones(1000)
    data = dumps(a)
    with pytest.raises(MemoryError, match=r"1 array in messages .* for \d+ s: .*revoke\(older_than\)"):
        sharedmem.empty(2**62, "u1")
    assert pickle.loads(data).sum() == 1000
    with pytest.raises(MemoryError) as error:
        sharedmem.empty(2**62, "u1")
    assert "revoke" not in str(error.value)
