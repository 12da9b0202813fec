"""Executors of other libraries send arrays as the page "What travels how" says."""

import contextlib

import numpy as np
import pytest
from support import TIMEOUT, check_python

import sharedmem
from sharedmem import is_shared


def shared(shape, dtype="f8"):
    return np.asarray(sharedmem.zeros(shape, dtype))


def counts():
    return sharedmem.stats()["transport"]


def use(module):
    return pytest.importorskip(module)


def grow(a):
    a += 1
    return is_shared(a), a


def make(count):
    return np.asarray(sharedmem.full(count, 3.0)), np.full(count, 4.0)


def ask(_):
    return counts()["messages"]


@contextlib.contextmanager
def loky():
    executor = use("loky").ProcessPoolExecutor(1)
    try:
        yield lambda f, x: executor.submit(f, x).result(TIMEOUT)
    finally:
        executor.shutdown(kill_workers=True)


@contextlib.contextmanager
def multiprocess():
    with use("multiprocess").Pool(1) as pool:
        yield lambda f, x: pool.apply(f, (x,))


@contextlib.contextmanager
def mpire():
    with use("mpire").WorkerPool(1, use_dill=True) as pool:
        yield lambda f, x: pool.apply(f, (x,))


@contextlib.contextmanager
def pathos():
    pool = use("pathos.multiprocessing").ProcessPool(1)
    try:
        yield lambda f, x: pool.pipe(f, x)
    finally:
        pool.close()
        pool.join()
        pool.clear()


EXECUTORS = {"loky": loky, "multiprocess": multiprocess, "pathos": pathos, "mpire": mpire}


@pytest.mark.parametrize("name", EXECUTORS)
def test_executors_pass_shared_arrays_by_handle(name):
    with EXECUTORS[name]() as call:
        a = shared((300, 100))
        was_shared, back = call(grow, a)
        assert was_shared
        assert (a == 1).all()
        assert type(back) is np.ndarray
        assert is_shared(back)
        back[:] = 5
        assert (a == 5).all()
        made, private = call(make, 100_000)
        assert is_shared(made)
        assert (made == 3).all()
        assert not is_shared(private)
        del back, made


@pytest.mark.parametrize("name", EXECUTORS)
def test_executors_carry_ordinary_arrays(name):
    with sharedmem.transport(), EXECUTORS[name]() as call:
        before = counts()["messages"]
        a = np.ones((300, 100))
        was_shared, back = call(grow, a)
        assert counts()["messages"] > before
        assert call(ask, 0) >= 1
        assert not was_shared
        assert (a == 1).all()
        assert not is_shared(back)
        assert back.flags.writeable
        assert (back == 2).all()
        assert counts()["in_flight"] == 0


def by_joblib(program, folder):
    """Runs a program, whose functions workers of joblib's pools have only if they are forked."""
    return check_python(program, JOBLIB_TEMP_FOLDER=folder, JOBLIB_START_METHOD="fork")


JOBLIB = """
import joblib, numpy as np, sharedmem
from sharedmem import is_shared

def grow(a):
    a += 1
    return is_shared(a), a

def double(a):
    return a * 2

def kind(a):
    return type(a).__name__

parallel = joblib.Parallel(2, backend={backend!r})
a = np.asarray(sharedmem.zeros((1000, 300)))
results = parallel(joblib.delayed(grow)(a) for _ in range(2))
assert [was_shared for was_shared, _ in results] == [True, True]
assert all(is_shared(back) for _, back in results)
assert (a <= 2).all() and (a >= 1).all()
with sharedmem.transport():
    before = sharedmem.stats()["transport"]["messages"]
    results = parallel(joblib.delayed(double)(np.full(50_000, i)) for i in range(3))
    assert sharedmem.stats()["transport"]["messages"] == before + 3
    assert [int(r[0]) for r in results] == [0, 2, 4] and not any(is_shared(r) for r in results)
    # Joblib still maps files for its largest arguments.
    kinds = parallel(joblib.delayed(kind)(np.ones(1 << 20)) for _ in range(2))
    assert kinds == ["memmap", "memmap"]
    assert sharedmem.stats()["transport"]["in_flight"] == 0
if {backend!r} == "loky":
    from joblib.externals.loky import get_reusable_executor
    get_reusable_executor().shutdown()
print("done")
"""


@pytest.mark.parametrize("backend", ["loky", "multiprocessing"])
def test_joblib(backend, tmp_path):
    use("joblib")
    assert by_joblib(JOBLIB.format(backend=backend), tmp_path) == "done"


FORKED_BY_JOBLIB = """
import joblib, numpy as np, sharedmem

def write_into(frame):
    frame.loc[3, 0] = 5.0
    return frame

def kind(a):
    return type(a).__name__

parallel = joblib.Parallel(2, backend="multiprocessing", max_nbytes=None)
with sharedmem.transport():
    before = sharedmem.stats()["transport"]["messages"]
    assert parallel(joblib.delayed(kind)(np.ones(1 << 20)) for _ in range(2)) == ["ndarray", "ndarray"]
    assert sharedmem.stats()["transport"]["messages"] == before + 2
try:
    import pandas
except ImportError:
    pass
else:
    a = np.asarray(sharedmem.zeros((100_000, 3)))
    (back,) = joblib.Parallel(2, backend="multiprocessing")(
        [joblib.delayed(write_into)(pandas.DataFrame(a, copy=False))]
    )
    assert a[3, 0] == 5
    back.loc[4, 1] = 6.0
    assert a[4, 1] == 6
print("done")
"""


def test_joblib_without_files_and_with_frames(tmp_path):
    use("joblib")
    assert by_joblib(FORKED_BY_JOBLIB, tmp_path) == "done"
