"""Calls of joblib with the backend "sharedmem": the workers of a test module, and what its tasks do."""

import gc

import numpy as np
import pytest
from support import check_python, wait_until

import sharedmem
from sharedmem import is_shared

joblib = pytest.importorskip("joblib")
from joblib.externals.loky import get_reusable_executor  # noqa: E402

LARGE = 500_000  # of float64: more than joblib's max_nbytes, 1 MB
SMALL = 20_000  # less than that, and more than what is carried at the least


def live():
    """Bytes of all arrays in the arena, which the workers have attached, too."""
    gc.collect()
    sharedmem.collect()
    return sharedmem.stats()["live_bytes"]


def counts():
    return sharedmem.stats()["transport"]


# -- fixtures: a test module imports both


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """The environment and the two workers of most tests of a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JOBLIB_TEMP_FOLDER", str(tmp_path_factory.mktemp("files")))
        with joblib.parallel_config(backend="sharedmem", n_jobs=2):
            run(describe, [np.ones(3)])
        yield
        get_reusable_executor().shutdown(kill_workers=True)


@pytest.fixture
def shared_backend(workers):
    with joblib.parallel_config(backend="sharedmem", n_jobs=2):
        yield
    wait_until(lambda: sharedmem.collect() is not None and sharedmem.stats()["leases"] == 0)


# -- calls and tasks


def run(function, inputs, **options):
    return joblib.Parallel(**options)(joblib.delayed(function)(each) for each in inputs)


def describe(a):
    return type(a).__name__, is_shared(a), a.flags.writeable, float(a.sum())


def add_one(a):
    a += 1
    return a


def double(a):
    return a * 2


def itself(a):
    return a


def make_shared(number):
    return sharedmem.full(SMALL, number, "i8")


# -- programs of their own

SCRIPT = """
import os, signal, warnings
import joblib, numpy as np, sharedmem
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

def run(function, inputs, **options):
    return joblib.Parallel(**options)(joblib.delayed(function)(each) for each in inputs)

def describe(a):
    return type(a).__name__, sharedmem.is_shared(a), a.flags.writeable

def add_one(a):
    a += 1
    return float(a[0])

def settle():
    import gc, time
    end = time.monotonic() + 60
    while True:
        gc.collect()
        sharedmem.collect(leases=True)  # results of killed workers may have been in flight
        numbers = sharedmem.stats()
        if numbers["leases"] == 0 and numbers["live_bytes"] <= live:
            return
        assert time.monotonic() < end, numbers
        time.sleep(0.05)

a = np.ones(500_000)
live = sharedmem.stats()["live_bytes"] + 65536
"""

END = """
get_reusable_executor().shutdown(kill_workers=True)
settle()
print("done")
"""


def check(code, tmp_path, **env):
    assert check_python(SCRIPT + code + END, JOBLIB_TEMP_FOLDER=tmp_path, **env) == "done"
    assert list(tmp_path.iterdir()) == []
