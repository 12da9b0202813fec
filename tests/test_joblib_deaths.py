"""joblib's backend "sharedmem" when workers are killed: the memory of messages in flight is given back."""

import pytest
from joblib_calls import check

pytest.importorskip("joblib")


def test_what_a_killed_worker_had_not_loaded_is_given_back(tmp_path):
    """By itself: those who get tasks die, and the sender lives on. Five calls are enough to leave some."""
    check(
        """
import gc, time

def die(a, number, victim):
    if number == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return number

def leases_are_back():
    end = time.monotonic() + 60
    while sharedmem.stats()["leases"]:
        gc.collect()
        assert time.monotonic() < end, sharedmem.stats()
        time.sleep(0.05)

carried, ours = np.ones(20_000), sharedmem.ones(1000)
with joblib.parallel_config(backend="sharedmem", n_jobs=2):
    for victim in (3, 0, 5, 2, 4):
        try:
            joblib.Parallel(batch_size=1)(
                joblib.delayed(die)((carried, ours), number, victim) for number in range(10))
        except TerminatedWorkerError:
            pass
        else:
            raise AssertionError(victim)
        leases_are_back()
""",
        tmp_path,
    )


def test_results_outlive_the_workers_that_made_them(tmp_path):
    check(
        """
def make(number, shared):
    made = np.full(20_000, number)
    return sharedmem.array(made) if shared else made

with joblib.parallel_config(backend="sharedmem", n_jobs=2):
    kept = [run(make_pair, range(4)) for make_pair in (lambda n: make(n, True), lambda n: make(n, False))]
    get_reusable_executor().shutdown(kill_workers=True)
    run(describe, [a])
    sharedmem.collect(leases=True)
for shared, results in zip((True, False), kept, strict=True):
    for number, each in enumerate(results):
        assert sharedmem.is_shared(each) is shared
        assert (each == number).all()
        each += 1
        assert (each == number + 1).all()
del kept, results, each
""",
        tmp_path,
    )
