"""joblib's backend "sharedmem": what tasks return."""

import joblib_calls
import numpy as np
from joblib_calls import LARGE, SMALL, add_one, counts, double, itself, live, make_shared, run
from support import wait_until

import sharedmem
from sharedmem import is_shared

workers = joblib_calls.workers
shared_backend = joblib_calls.shared_backend


def test_results_are_private_and_writable(shared_backend):
    before = live()
    a = np.ones(LARGE)
    large = run(double, [a] * 2)
    small = run(double, [a[:SMALL]] * 2)
    # What was read-only in the worker, a view of it, and the input itself.
    same = run(itself, [a, a[::2], a[:SMALL]])
    for back in (*large, *small, *same):
        assert type(back) is np.ndarray
        assert not is_shared(back)
        assert back.flags.writeable
        back[:] = 3
    assert (a == 1).all()
    wait_until(lambda: live() <= before)


def view_of(a):
    return {"view": a[1::3], "list": [a.reshape(-1, 2)]}


def test_views_of_an_input_come_back_as_values(shared_backend):
    a = np.arange(float(LARGE))
    (back,) = run(view_of, [a])
    assert (back["view"] == a[1::3]).all()
    for each in (back["view"], back["list"][0]):
        assert not is_shared(each)
        each[:] = 0
    assert a[-1] == LARGE - 1


def test_shared_results_come_by_handle(shared_backend):
    results = run(make_shared, range(4))
    assert [int(r[0]) for r in results] == [0, 1, 2, 3]
    assert all(is_shared(r) and isinstance(r, sharedmem.SharedArray) for r in results)
    run(add_one, results)
    assert [int(r[-1]) for r in results] == [1, 2, 3, 4]


def test_results_and_small_inputs_go_through_shared_memory(shared_backend):
    before = counts()
    a = np.ones(SMALL)
    run(double, [a])
    after = counts()
    assert after["messages"] == before["messages"] + 1
    assert after["bytes"] == before["bytes"] + a.nbytes
    assert run(worker_counts, [0] * 4, batch_size=1)[0] >= 1
    assert after["in_flight"] == before["in_flight"]


def worker_counts(_):
    return counts()["messages"]


def calls_that_read():
    with open("/proc/self/io") as file:
        return int(dict(line.split(": ") for line in file.read().splitlines())["syscr"])


def test_messages_without_large_arrays_read_no_files_of_the_system(shared_backend):
    """The limit of bytes in flight depends on the machine's memory, which takes long to read."""
    from joblib.externals.loky.backend import reduction

    from sharedmem._integrations.joblib_backend import ResultMessages
    from sharedmem._integrations.loky_ import Messages

    reducers = {np.ndarray: np.ndarray.__reduce__, Messages: ResultMessages()}
    reduction.dumps(None, reducers)
    before = calls_that_read()
    for number in range(100):
        assert reduction.loads(reduction.dumps([number, np.arange(3)], reducers))[0] == number
    assert calls_that_read() - before < 50
