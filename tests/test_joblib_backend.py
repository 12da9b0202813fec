"""joblib's backend "sharedmem": what tasks get."""

import threading
import time

import joblib_calls
import numpy as np
import pytest
from joblib_calls import LARGE, SMALL, add_one, counts, describe, itself, live, run
from support import TIMEOUT, wait_until

import sharedmem
from sharedmem import is_shared

joblib = pytest.importorskip("joblib")

workers = joblib_calls.workers
shared_backend = joblib_calls.shared_backend


def test_arrays_in_shared_memory_are_written_in_place(shared_backend):
    a = sharedmem.zeros((8, LARGE))
    results = run(add_one, list(a))
    assert (a == 1).all()
    results[3][:] = 5
    assert (a[3] == 5).all()
    plain = np.asarray(sharedmem.zeros((4, SMALL)))
    run(add_one, [plain[1:3, ::2]])
    assert plain.sum() == SMALL
    with sharedmem.allocator():
        made = np.ones(LARGE)
    run(add_one, [made])
    assert (made == 2).all()


def test_large_plain_arrays_arrive_read_only_and_are_copied_once(shared_backend, monkeypatch):
    from sharedmem._integrations import joblib_backend

    copies = []
    plain = joblib_backend.copy
    monkeypatch.setattr(joblib_backend, "copy", lambda a, order: copies.append(a) or plain(a, order))
    a = np.ones(LARGE)
    assert run(describe, [a] * 6) == [("ndarray", True, False, LARGE)] * 6
    assert len(copies) == 1
    assert a.flags.writeable


def try_to_write(a):
    for change in (lambda: a.__setitem__(0, 5), lambda: a.setflags(write=True)):
        with pytest.raises(ValueError, match=r"read-only|WRITEABLE"):
            change()
    return float(a[0])


def test_inputs_that_other_tasks_read_cannot_be_written(shared_backend):
    assert run(try_to_write, [np.ones(LARGE)] * 2) == [1, 1]


def test_small_plain_arrays_arrive_private_and_writable(shared_backend):
    a = np.ones(SMALL)
    assert run(describe, [a] * 3) == [("ndarray", False, True, SMALL)] * 3
    assert [float(r[0]) for r in run(add_one, [a] * 3)] == [2, 2, 2]
    assert (a == 1).all()


def test_what_changes_between_two_calls_arrives_changed(shared_backend):
    a = np.ones(LARGE)
    with joblib.Parallel() as parallel:
        for number in range(3):
            a[:] = number
            assert [r[3] for r in parallel(joblib.delayed(describe)(a) for _ in range(2))] == [
                number * LARGE
            ] * 2


LAYOUTS = {
    "fortran": np.asfortranarray(np.arange(float(LARGE)).reshape(500, -1)),
    "reversed": np.arange(float(LARGE))[::-1],
    "strided": np.arange(4.0 * LARGE).reshape(2, -1)[:, ::2],
    "permuted": np.arange(float(LARGE)).reshape(50, 100, 100).transpose(1, 2, 0),
    "other byte order": np.arange(LARGE, dtype=">f8"),
    "structured": np.ones(LARGE // 2, [("a", "f8"), ("b", "i4"), ("c", "S4")]),
    "dates": np.arange(LARGE).astype("M8[s]"),
    "metadata": np.ones(LARGE, np.dtype("f8", metadata={"unit": "m"})),
    "view of another class": np.ones(LARGE).view(sharedmem.SharedArray),
}


def test_every_layout_arrives_with_its_values(shared_backend):
    for a, back in zip(LAYOUTS.values(), run(itself, LAYOUTS.values()), strict=True):
        assert back.dtype == a.dtype
        assert back.shape == a.shape
        assert (back == a).all()
        assert back.flags.writeable
        assert not is_shared(back)


def sum_of_frame(frame):
    return frame.to_numpy().flags.writeable, float(frame.sum().sum())


def test_frames_share_their_columns_among_the_tasks(shared_backend):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.ones((LARGE, 2)))
    assert run(sum_of_frame, [frame] * 3) == [(False, 2 * LARGE)] * 3
    (back,) = run(itself, [frame])
    back.iloc[0, 0] = 7.0
    assert frame.equals(pandas.DataFrame(np.ones((LARGE, 2))))
    assert not is_shared(back[0].to_numpy())


def live_and_sum(a):
    return sharedmem.stats()["live_bytes"], float(a[0])


def test_values_by_array_end_with_the_array_and_belong_to_no_other():
    from sharedmem._integrations.joblib_backend import ByArray

    values = ByArray()
    one, two = np.ones(3), np.ones(3)
    values.set(one, "one")
    assert values.get(one) == "one"
    assert values.get(two) is None
    # The id of an array that was freed may be given to another one.
    values._values[id(two)] = values._values[id(one)]
    assert values.get(two) is None
    values.set(two, "two")
    assert values.get(two) == "two"
    del one, two
    assert not values


def test_a_task_without_arrays_is_sent_as_loky_sends_it():
    from joblib._memmapping_reducer import get_memmapping_reducers
    from joblib.externals.loky.backend.reduction import dumps
    from joblib.externals.loky.process_executor import _CallItem

    from sharedmem._integrations.joblib_backend import ByArray, Task, TaskMessages
    from sharedmem._integrations.loky_ import Messages

    lokys, _ = get_memmapping_reducers(temp_folder_resolver=str, max_nbytes=1, mmap_mode="r")
    task = joblib.delayed(abs)(3)
    plain = dumps(_CallItem(1, task, (), {}), reducers=lokys)
    ours = dumps(_CallItem(1, Task(task, ByArray()), (), {}), reducers={**lokys, Messages: TaskMessages()})
    assert bytes(ours) == bytes(plain)


def test_copies_end_with_the_call_where_its_tasks_do_not():
    from sharedmem._integrations.joblib_backend import Backend, Task

    backend, a = Backend(), np.ones(3)
    backend.start_call()
    task = Task(abs, backend._copies)
    task.copies.set(a, "copy")
    backend.stop_call()
    assert not task.copies


def test_copies_go_with_their_arrays_and_with_the_call(shared_backend):
    before = live()
    inputs = (np.full(LARGE, float(number)) for number in range(30))
    seen = run(live_and_sum, inputs, pre_dispatch=4, batch_size=1)
    assert [first for _, first in seen] == list(range(30))
    # All of them would be 30, but nothing is kept of arrays that were dropped.
    assert max(bytes_ for bytes_, _ in seen) - before < 20 * LARGE * 8
    kept = np.ones(LARGE)
    run(describe, [kept])
    wait_until(lambda: live() <= before)


def test_two_threads_that_call_at_the_same_time(shared_backend):
    failed = []

    def call(number):
        try:
            with joblib.parallel_config(backend="sharedmem", n_jobs=2):
                for _ in range(5):
                    a = np.full(LARGE, float(number))
                    assert run(describe, [a] * 3) == [("ndarray", True, False, LARGE * number)] * 3
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=call, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert failed == []


class Made:
    """Pickles as an array that no other process has."""

    def __reduce__(self):
        return itself, (np.full(LARGE, 7.0),)


def first_after(a):
    time.sleep(0.3)
    return a.flags.writeable, float(a[0])


def test_arrays_that_are_made_to_be_pickled_last_until_they_are_loaded(shared_backend):
    assert run(first_after, [Made() for _ in range(6)], batch_size=1) == [(False, 7.0)] * 6


# -- what is refused


def test_without_room_joblib_writes_its_files(shared_backend, monkeypatch):
    from sharedmem._integrations import joblib_backend

    def refuse(a, order):
        raise MemoryError

    monkeypatch.setattr(joblib_backend, "copy", refuse)
    assert run(describe, [np.ones(LARGE)] * 3) == [("memmap", False, False, LARGE)] * 3


def test_beyond_what_may_be_in_flight_small_arrays_are_pickled(shared_backend, monkeypatch):
    from sharedmem._integrations import joblib_backend

    monkeypatch.setattr(joblib_backend, "most_in_flight", lambda: SMALL)
    before = counts()
    assert run(describe, [np.ones(SMALL)]) == [("ndarray", False, True, SMALL)]
    assert counts()["messages"] == before["messages"]
    assert counts()["by_pipe"] == before["by_pipe"] + 1


def test_objects_and_memmaps_travel_as_joblib_has_them(shared_backend, tmp_path):
    objects = np.array([None, "text", 3] * 100_000, object)
    (back,) = run(itself, [objects])
    assert (back == objects).all()
    np.save(tmp_path / "a.npy", np.ones(LARGE))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert run(describe, [mapped, mapped[::2], np.asarray(mapped)]) == [
        ("memmap", False, False, LARGE),
        ("ndarray", False, False, LARGE // 2),
        ("memmap", False, False, LARGE),
    ]
    ours = sharedmem.open_memmap(tmp_path / "a.npy", mode="r+")
    run(add_one, [ours])
    assert (ours == 2).all()
    del ours
