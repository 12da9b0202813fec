"""joblib's backend "sharedmem": options, batches, nested calls and errors are as with loky."""

import joblib_calls
import numpy as np
import pytest
from joblib_calls import LARGE, SMALL, add_one, check, describe, double, run

joblib = pytest.importorskip("joblib")

workers = joblib_calls.workers
shared_backend = joblib_calls.shared_backend


def test_one_job_is_a_loop_in_this_process(shared_backend):
    a = np.ones(LARGE)
    assert run(add_one, [a], n_jobs=1)[0] is a


def test_tasks_in_batches_and_generators(shared_backend):
    a = np.ones(LARGE)
    assert run(double, range(200), batch_size="auto") == [2 * n for n in range(200)]
    for how in ("generator", "generator_unordered"):
        found = run(scaled, [(a, n) for n in range(10)], return_as=how)
        assert sorted(r[0] for r in found) == list(range(10))


def scaled(given):
    a, number = given
    assert not a.flags.writeable
    return a[:SMALL] * number


def nested(a):
    inner = joblib.Parallel(n_jobs=2)(joblib.delayed(describe)(a[::k]) for k in (1, 2))
    with joblib.parallel_config(backend="threading", n_jobs=2):
        threads = run(describe, [a, a])
    return inner, threads


def test_parallel_within_a_task(shared_backend):
    a = np.ones(LARGE)
    whole, half = ("ndarray", True, False, LARGE), ("ndarray", True, False, LARGE // 2)
    assert run(nested, [a, a]) == [([whole, half], [whole, whole])] * 2


def test_errors_and_kills(tmp_path):
    """As with loky: the error is raised, and the next call has new workers."""
    check(
        """
def fail(a, number):
    if number == 3:
        raise KeyError("three")
    return a * 2

def die(a, number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return a * 2

class Stubborn:
    def __reduce__(self):
        raise KeyError("stubborn")

with joblib.parallel_config(backend="sharedmem", n_jobs=2):
    for function, error in (fail, KeyError), (die, TerminatedWorkerError):
        try:
            joblib.Parallel(batch_size=1)(joblib.delayed(function)(a, n) for n in range(6))
        except error:
            pass
        else:
            raise AssertionError(function)
        assert run(describe, [a]) == [("ndarray", True, False)]
    try:
        run(describe, [(a, Stubborn())])
    except Exception as error:
        assert "pickle" in str(error)
    # A generator that is not read to its end.
    results = run(np.negative, [a] * 10, return_as="generator")
    assert next(results)[0] == -1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results.close()
        del results
""",
        tmp_path,
    )


def test_options_of_joblib_keep_their_meaning(tmp_path):
    check(
        """
for mode, how, first in (
    ("r+", ("ndarray", True, True), 3),
    ("c", ("ndarray", False, True), 2),
    (None, ("ndarray", False, True), 2),
):
    with joblib.parallel_config(backend="sharedmem", n_jobs=2, mmap_mode=mode):
        assert run(describe, [a] * 2) == [how] * 2, mode
        assert max(run(add_one, [a] * 2, batch_size=1)) == first, mode
        assert a[0] == 1
with joblib.parallel_config(backend="sharedmem", n_jobs=2, max_nbytes=None):
    assert run(describe, [a] * 2) == [("ndarray", False, True)] * 2
""",
        tmp_path,
    )


def test_plain_calls_before_and_after_are_those_of_joblib(tmp_path):
    check(
        """
def ones(size):
    return np.ones(size)

def carried(_):
    return sharedmem.stats()["transport"]["messages"]

def results_are_carried():
    run(ones, [20_000] * 4, batch_size=1, n_jobs=2)
    return any(run(carried, range(8), batch_size=1, n_jobs=2))

plain = [("memmap", False, False)] * 2
assert run(describe, [a] * 2, n_jobs=2) == plain
assert not results_are_carried()
with joblib.parallel_config(backend="sharedmem", n_jobs=2):
    assert run(describe, [a] * 2) == [("ndarray", True, False)] * 2
    assert results_are_carried()
assert run(describe, [a] * 2, n_jobs=2) == plain
assert not results_are_carried()
assert run(describe, [a] * 2, n_jobs=2, backend="sharedmem") == [("ndarray", True, False)] * 2
""",
        tmp_path,
    )


UNKNOWN = """
{change}
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for _ in range(2):
        with joblib.parallel_config(backend="sharedmem", n_jobs=2):
            assert run(describe, [a] * 2) == [("memmap", False, False)] * 2
(one,) = [each for each in said if each.category is RuntimeWarning]
assert "sharedmem does not know this version of joblib" in str(one.message), one
"""


@pytest.mark.parametrize(
    "change",
    [
        "import joblib._parallel_backends as module; del module.ParallelBackendBase.start_call",
        "plain = joblib.executor.get_memmapping_reducers; "
        "joblib.executor.get_memmapping_reducers = lambda **options: (plain(**options)[0], {})",
    ],
)
def test_a_joblib_that_is_not_as_expected_is_used_as_it_is(change, tmp_path):
    check(UNKNOWN.format(change=change), tmp_path)
