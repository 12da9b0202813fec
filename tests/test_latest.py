"""Latest: the newest array, one writer, many readers, nothing copied."""

import gc
import os
import pickle
import threading
import time

import numpy as np
import pytest
import support
import workers

import sharedmem


def numbers(latest):
    return int(repr(latest).rpartition(" ")[2][:-1])


def leases():
    return sharedmem.stats()["leases"]


def test_the_newest_array_is_the_memory_that_was_put():
    latest = sharedmem.Latest()
    frame = sharedmem.zeros((3, 4))
    assert latest.put(frame) == 1
    got, number = latest.get()
    assert number == 1
    assert type(got) is sharedmem.SharedArray
    assert support.address(got) == support.address(frame)
    assert latest.put(frame[1:]) == 2
    got, number = latest.get()
    assert (got.shape, number) == ((2, 4), 2)
    assert latest.get()[1] == 2


@pytest.mark.parametrize(
    "dtype",
    ["?", "i1", ">i4", "f8", "c16", "S3", "U2", "M8[us]", "V5", "f2"]
    + [
        [("a", "i4"), ("b", ">f8", (2,)), ("c", [("d", "S2")])],
        np.dtype([("x", "i1"), ("y", "f8")], align=True),
    ],
    ids=str,
)
def test_dtypes_and_layouts(dtype):
    latest = sharedmem.Latest()
    a = sharedmem.zeros((4, 5, 2), dtype)
    for view in (a, a.T, a[::-2, 1:3], a[1, 2]):
        latest.put(view)
        got = latest.get()[0]
        assert (got.shape, got.strides, got.dtype) == (view.shape, view.strides, view.dtype)
        assert got.dtype.fields == view.dtype.fields
        assert support.address(got) == support.address(view)
    a.flags.writeable = False
    latest.put(a)
    assert not latest.get()[0].flags.writeable


def test_what_is_not_shared_is_copied_once():
    latest, private = sharedmem.Latest(), np.arange(5)
    latest.put(private)
    private[0] = 7
    got = latest.get()[0]
    assert sharedmem.is_shared(got)
    assert got.tolist() == [0, 1, 2, 3, 4]
    latest.put([1.5, 2])
    assert latest.get()[0].tolist() == [1.5, 2]


def test_what_cannot_be_put():
    latest = sharedmem.Latest()
    many = [(f"{'x' * 40}{i}", "i4") for i in range(100)]
    for thing, error, text in (
        (np.zeros(0), ValueError, "without elements"),
        (np.zeros(3, "V0"), ValueError, "without elements"),
        (np.array([None]), TypeError, "object"),
        (np.zeros(2, many), ValueError, "at most 2008 fit"),
        (np.zeros(2, np.dtype([("a", "i4")], metadata={"b": 1})), TypeError, "npy"),
    ):
        with pytest.raises(error, match=text):
            latest.put(thing)
    assert leases() == 0
    with pytest.raises(TimeoutError):
        latest.get(timeout=0)
    assert latest.put(np.zeros(1)) == 1


def test_waiting_for_the_first_and_for_a_newer_one():
    latest = sharedmem.Latest()
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no array was put within 0\.15 s$"):
        latest.get(timeout=0.15)
    assert time.monotonic() - begin >= 0.15
    latest.put(np.zeros(1))
    assert latest.get(after=0, timeout=-1)[1] == 1
    with pytest.raises(TimeoutError, match="after the one with number 1"):
        latest.get(after=1, timeout=0.01)
    timer = threading.Timer(0.05, latest.put, (np.ones(1),))
    timer.start()
    got, number = latest.get(after=np.int64(1), timeout=support.TIMEOUT)
    assert (got[0], number) == (1, 2)
    timer.join()


def test_wrong_arguments():
    latest = sharedmem.Latest()
    latest.put(np.zeros(1))
    for after in ("1", 1.0, True, [1]):
        with pytest.raises(TypeError, match="is an int"):
            latest.get(after=after)
    with pytest.raises(ValueError, match="-1"):
        latest.get(after=-1)
    for timeout in ("1", [1]):
        with pytest.raises(TypeError):
            latest.get(timeout=timeout)
    with pytest.raises(TypeError):
        latest.get(1)
    with pytest.raises(TimeoutError):
        latest.get(after=2**70, timeout=0.01)
    for memory in (np.zeros(6152, "u1"), sharedmem.zeros(6152, "u1"), sharedmem.zeros(8, "u1"), None):
        with pytest.raises((ValueError, AttributeError)):
            sharedmem._latest._open(sharedmem.RLock(), memory)


@pytest.mark.parametrize("timeout", [None, 2 * support.TIMEOUT])
def test_a_lost_wake_up_does_not_keep_a_reader_asleep(timeout):
    """The writer was killed after it had stored the number, before it woke the readers."""
    latest = sharedmem.Latest()
    latest.put(np.zeros(1))
    found = []
    reader = threading.Thread(target=lambda: found.append(latest.get(after=1, timeout=timeout)[1]))
    reader.start()
    time.sleep(0.02)
    bell = latest._bell[0]
    latest.put(np.zeros(1))
    latest._bell[0] = bell
    reader.join(support.TIMEOUT)
    assert found == [2]


def test_ctrl_c_ends_a_wait():
    latest = sharedmem.Latest()
    timer = threading.Timer(0.05, workers.interrupt)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        latest.get()
    timer.join()


def test_one_array_is_kept_and_the_others_go():
    latest = sharedmem.Latest()
    for i in range(300):
        frame = sharedmem.full(1 << 17, i, "u8")
        latest.put(frame)
        del frame
        assert leases() == 1
    assert sharedmem.stats()["shared_bytes"] < 20 << 20
    assert (latest.get()[0] == 299).all()
    del latest
    gc.collect()
    assert leases() == 0


def test_a_reader_keeps_what_it_got():
    latest = sharedmem.Latest()
    latest.put(np.full(1000, 1))
    first = latest.get()[0]
    for i in range(2, 6):
        latest.put(np.full(1000, i))
    assert (first == 1).all()
    del latest
    gc.collect()
    assert (first == 1).all()


def test_a_pickle_is_the_same_one_and_a_file_has_a_new_one():
    latest = sharedmem.Latest()
    assert support.roundtrip(latest) is latest
    latest.put(np.zeros(1))
    with sharedmem.pickle_by_value():
        data = pickle.dumps(latest)
    with pytest.raises(TimeoutError):
        pickle.loads(data).get(timeout=0)


# -- several processes


def newest(latest, after):
    got, number = latest.get(after=after, timeout=support.TIMEOUT)
    return got[0], number, support.address(got)


had = []  # a worker keeps there what it was sent


def keep_and_put(latest, first, count):
    had.append(latest)
    return put_some(latest, first, count)


def keep(latest):
    had.append(latest)


def drop_all():
    had.clear()
    gc.collect()


def put_some(latest, first, count):
    return [latest.put(np.full(3, first + i)) for i in range(count)]


@pytest.mark.parametrize("kind", support.KINDS)
def test_readers_and_writers_that_already_run(kind):
    latest = sharedmem.Latest()
    with support.Remote(kind) as remote:
        remote.conn.send((newest, (latest, None)))
        latest.put(np.full(3, 7))
        assert remote.result()[:2] == (7, 1)
        with pytest.raises(support.RemoteError, match=rf"process {os.getpid()} puts arrays"):
            remote.call(keep_and_put, latest, 0, 1)
        data = support.dumps(latest)
        del latest  # but the message has it
        gc.collect()
        latest = pickle.loads(data)
        assert remote.call(keep_and_put, latest, 10, 2) == [2, 3]
        assert newest(latest, None)[:2] == (11, 3)
        with pytest.raises(RuntimeError, match=rf"process {remote.pid} puts arrays"):
            latest.put(np.zeros(1))
    assert latest.put(np.zeros(1)) == 4


def test_threads_of_one_process_may_put():
    latest = sharedmem.Latest()
    threads = [threading.Thread(target=put_some, args=(latest, 0, 100)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert latest.get()[1] == 400
    assert leases() == 1


def test_a_forked_child_reads_and_does_not_end_its_parent_s_writing():
    latest = sharedmem.Latest()
    latest.put(np.full(3, 5))

    def child():
        assert latest.get()[0][0] == 5
        with pytest.raises(RuntimeError, match=str(os.getppid())):
            latest.put(np.zeros(1))

    assert support.in_fork(child) == 0
    assert latest.get()[0][0] == 5
    assert latest.put(np.zeros(1)) == 2


def test_a_writer_that_ends_leaves_its_last_array(context):
    latest = sharedmem.Latest()
    process = context.Process(target=put_some, args=(latest, 0, 3))
    process.start()
    assert support.join(process) == [0]
    assert newest(latest, None)[:2] == (2, 3)
    assert latest.put(np.zeros(1)) == 4
    assert leases() == 1
    del latest
    gc.collect()
    assert leases() == 0


def test_a_writer_that_drops_it_before_the_others_gives_its_last_array_back_later():
    with support.Remote() as remote:
        latest = sharedmem.Latest()
        remote.call(keep_and_put, latest, 0, 1)
        remote.call(drop_all)
        assert newest(latest, None)[:2] == (0, 1)
        assert latest.put(np.zeros(1)) == 2  # the other one has dropped it
        remote.call(keep, latest)
        del latest
        gc.collect()
        assert leases() == 1
        remote.call(drop_all)
        sharedmem.Latest()  # what is dropped is settled when the next one is used
        assert leases() == 0


def test_the_last_user_gives_the_last_array_back():
    with support.Remote() as remote:
        latest = sharedmem.Latest()
        remote.call(keep_and_put, latest, 0, 1)
        del latest
        gc.collect()
        assert leases() == 1
        remote.call(drop_all)
        assert support.wait_until(lambda: leases() == 0)


def test_an_array_in_a_file_is_copied(tmp_path):
    np.save(tmp_path / "frame.npy", np.arange(1000.0))
    latest = sharedmem.Latest()
    latest.put(sharedmem.open_memmap(tmp_path / "frame.npy"))
    assert (latest.get()[0] == np.arange(1000.0)).all()


def test_a_writer_holds_one_lock_at_a_time():
    """Otherwise two processes that replaced each other as writers could wait for each other for ever."""
    with support.Remote() as remote:
        dropped, latest = sharedmem.Latest(), sharedmem.Latest()
        dropped.put(np.zeros(1))
        remote.call(keep, dropped)
        other, own = dropped._lock, latest._lock
        del dropped  # the next `put` looks whether its last array can go, for which it takes that lock
        gc.collect()
        assert other.acquire(timeout=support.TIMEOUT)
        thread = threading.Thread(target=latest.put, args=(np.ones(1),))
        thread.start()
        time.sleep(0.1)
        try:
            assert thread.is_alive()
            assert own.acquire(timeout=1)
            own.release()
        finally:
            other.release()
            thread.join()
        assert latest.get()[0][0] == 1
        remote.call(drop_all)
