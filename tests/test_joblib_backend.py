"""joblib's backend "sharedmem": inputs and results in shared memory, and loky in all else."""

import gc
import threading
import time

import numpy as np
import pytest
from support import TIMEOUT, check_python, wait_until

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


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """The environment and the two workers of most tests below."""
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


# -- inputs


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


def test_copies_go_with_their_arrays_and_with_the_call(shared_backend):
    before = live()
    inputs = (np.full(LARGE, float(number)) for number in range(30))
    seen = run(live_and_sum, inputs, pre_dispatch=4, batch_size=1)
    assert [first for _, first in seen] == list(range(30))
    # All of them would be 30: of arrays that nobody has any more nothing is kept.
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
    """Pickles as an array that nobody else has."""

    def __reduce__(self):
        return itself, (np.full(LARGE, 7.0),)


def first_after(a):
    time.sleep(0.3)
    return a.flags.writeable, float(a[0])


def test_arrays_that_are_made_to_be_pickled_last_until_they_are_loaded(shared_backend):
    assert run(first_after, [Made() for _ in range(6)], batch_size=1) == [(False, 7.0)] * 6


# -- results


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


def counts():
    return sharedmem.stats()["transport"]


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
    assert run(describe, [mapped, mapped[::2]]) == [
        ("memmap", False, False, LARGE),
        ("ndarray", False, False, LARGE // 2),
    ]
    ours = sharedmem.open_memmap(tmp_path / "a.npy", mode="r+")
    run(add_one, [ours])
    assert (ours == 2).all()
    del ours


# -- what joblib does


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
        sharedmem.collect(leases=True)  # killed workers may have had results under way
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
plain = [("memmap", False, False)] * 2
assert run(describe, [a] * 2, n_jobs=2) == plain
with joblib.parallel_config(backend="sharedmem", n_jobs=2):
    assert run(describe, [a] * 2) == [("ndarray", True, False)] * 2
assert run(describe, [a] * 2, n_jobs=2) == plain
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
