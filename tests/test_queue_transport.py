"""Plain arrays in messages of queues: what `transport` does with them."""

import multiprocessing
import pickle
import queue as standard

import numpy as np
import pytest
import support
import workers

import sharedmem

LARGE = 1 << 18  # bytes


def counts():
    return dict(sharedmem.stats()["transport"])


def since(before):
    return {name: value - before[name] for name, value in counts().items()}


@pytest.mark.parametrize("wrap", [lambda a: a, lambda a: {"a": a, "b": [a[:5]]}], ids=["alone", "in a dict"])
def test_data_goes_by_handle_and_arrives_as_a_private_copy(wrap):
    a = np.random.default_rng(1).random(LARGE // 8)
    q = sharedmem.Queue()
    with sharedmem.transport():
        before = counts()
        q.put(wrap(a))
        assert q.stats()["bytes"] < 1000
        sent = since(before)
        assert (sent["messages"], sent["bytes"], sent["by_pipe"]) == (1, LARGE, 0)
        assert sent["in_flight"] >= LARGE
        got = q.get()
        assert since(before)["in_flight"] == 0
    if isinstance(got, dict):
        np.testing.assert_array_equal(got["b"][0], a[:5])
        got = got["a"]
    assert type(got) is np.ndarray
    assert got.flags.owndata
    assert got.flags.writeable
    np.testing.assert_array_equal(got, a)


def test_without_transport_the_bytes_are_in_the_message():
    a = np.ones(LARGE // 8)
    q = sharedmem.Queue()
    before = counts()
    q.put(a)
    assert q.stats()["bytes"] > LARGE
    assert since(before)["messages"] == 0
    np.testing.assert_array_equal(q.get(), a)


def test_without_a_second_copy_the_array_arrives_in_shared_memory():
    q = sharedmem.Queue()
    with sharedmem.transport(copy=False):
        q.put([np.arange(1 << 18)])
        (got,) = q.get()
    assert sharedmem.is_shared(got)
    np.testing.assert_array_equal(got, np.arange(1 << 18))


def test_plain_arrays_over_shared_memory_are_not_copied():
    a = sharedmem.zeros(1000)
    q = sharedmem.Queue()
    q.put([np.asarray(a)])
    (got,) = q.get()
    got[7] = 3
    assert a[7] == 3


def test_what_may_not_be_under_way_is_sent_by_value():
    a = np.ones(LARGE // 8)
    q = sharedmem.Queue()
    with sharedmem.transport(max_in_flight=LARGE + LARGE // 2):
        before = counts()
        for _ in range(3):
            q.put(a)
        sent = since(before)
        assert (sent["messages"], sent["by_pipe"]) == (1, 2)
        for _ in range(3):
            np.testing.assert_array_equal(q.get(), a)


def send_and_die(q):
    with sharedmem.transport():
        q.put((np.full(LARGE, 5.0), "text"))
    workers.kill()


def test_the_queue_keeps_data_whose_sender_was_killed():
    q = sharedmem.Queue()

    process = multiprocessing.get_context(support.QUICKEST).Process(target=send_and_die, args=(q,))
    process.start()
    process.join()
    assert workers.was_killed(process.exitcode)
    sharedmem.collect(leases=True)
    a, text = q.get(timeout=60)
    assert text == "text"
    assert (a == 5).all()


def test_data_is_freed_with_its_queue_or_its_failed_message():
    shared = sharedmem.stats()
    with sharedmem.transport():
        q = sharedmem.Queue(1)
        q.put([np.ones(LARGE)])
        for unfit, error in ((lambda: None, (AttributeError, pickle.PicklingError)), (5, standard.Full)):
            with pytest.raises(error):
                q.put_nowait([np.ones(LARGE), unfit])
            with pytest.raises(error):
                q.put_many([[np.ones(LARGE)], unfit], block=False)
        del q
        sharedmem.collect()
        after = sharedmem.stats()
    assert after["leases"] == shared["leases"]
    assert after["shared_blocks"] == shared["shared_blocks"]
    assert after["transport"]["in_flight"] == shared["transport"]["in_flight"]
