"""Messages of workers with an arena of their own, read after the end of these workers."""

import os
import pickle
import uuid

import pytest
from support import MARK, START_METHODS, check_python, marked, run_python, segments, wait_until

from sharedmem import StaleHandleError

SEND = """
import os, sys
from multiprocessing.reduction import ForkingPickler
import sharedmem
print(os.getpid(), os.getsid(0), bytes(ForkingPickler.dumps(sharedmem.full(1000, 3.0))).hex())
"""


@pytest.fixture
def mark():
    """A word in the environment by which the processes of a test are found."""
    mark = uuid.uuid4().hex
    yield mark
    assert wait_until(lambda: not marked(mark))


def send(mark, ending="", **options):
    """(pid, session, message) of a process that sent an array and has ended."""
    status, out, err = run_python(SEND + ending, **{MARK: mark}, **options)
    assert (status in (0, -9), err) == (True, b"")
    pid, session, message = out.split()
    return int(pid), int(session), bytes.fromhex(message.decode())


def test_a_lone_sender_that_has_ended(mark):
    _, _, message = send(mark)
    a = pickle.loads(message)
    assert (a == 3).all()
    assert wait_until(lambda: not marked(mark))
    assert (a == 3).all()
    assert pickle.loads(pickle.dumps(a)).sum() == 3000


def test_what_stays_is_one_process_without_descriptors_in_a_session_of_its_own(mark):
    _, session, message = send(mark, SHAREDMEM_LINGER=60)
    (pid,) = marked(mark)
    assert wait_until(lambda: os.listdir(f"/proc/{pid}/fd") == [])
    assert os.getsid(pid) not in (session, os.getsid(0))
    pickle.loads(message)


def test_it_ends_by_itself_when_no_process_attaches(mark):
    pid, _, message = send(mark, SHAREDMEM_LINGER=1)
    assert wait_until(lambda: not marked(mark))
    # The environment of a process goes a moment before its memory does.
    assert wait_until(lambda: not segments(pid))
    with pytest.raises(StaleHandleError):
        pickle.loads(message)


def test_switched_off(mark):
    pid, _, message = send(mark, SHAREDMEM_LINGER=0)
    assert marked(mark) == []
    assert wait_until(lambda: not segments(pid))
    with pytest.raises(StaleHandleError):
        pickle.loads(message)


@pytest.mark.parametrize(
    "ending",
    [
        "",
        "pickle.loads(data)",
        "kept = pickle.dumps(a)",
        "import time; time.sleep(0.05); sharedmem.revoke(0)",
    ],
)
def test_nothing_stays_without_a_message_in_flight(mark, ending):
    lease = "data = bytes(ForkingPickler.dumps(a))" if ending and "kept" not in ending else ""
    code = f"""
import pickle
from multiprocessing.reduction import ForkingPickler
import sharedmem
a = sharedmem.ones(10)
{lease}
{ending}
"""
    check_python(code, **{MARK: mark})
    assert marked(mark) == []


@pytest.mark.parametrize("ending", ["os._exit(0)", "os.kill(os.getpid(), 9)"])
def test_nothing_stays_after_a_disorderly_end(mark, ending):
    pid, _, message = send(mark, f"sys.stdout.flush(); {ending}")
    assert marked(mark) == []
    assert wait_until(lambda: not segments(pid))
    with pytest.raises(StaleHandleError):
        pickle.loads(message)


def test_nothing_stays_of_a_process_that_is_not_alone(mark):
    _, _, message = send(mark, related=True)
    assert marked(mark) == []
    assert (pickle.loads(message) == 3).all()


# The parent of these workers has neither NumPy nor sharedmem until it reads what they sent.
LATE_PARENT = """
import multiprocessing, sys
import workers
context = multiprocessing.get_context(sys.argv[1])
queue = getattr(context, sys.argv[2])()
worker = context.Process(target=workers.put_full, args=(queue, 1000, 3.0))
worker.start()
worker.join(60)
assert worker.exitcode == 0
assert "sharedmem" not in sys.modules
try:
    print(queue.get().sum())
except ValueError as error:
    print(type(error).__name__)
queue.close()
if sys.argv[2] == "Queue":
    queue.join_thread()
"""


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue"])
@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_parent_that_imports_the_library_by_reading(mark, start_method, kind):
    said = check_python(LATE_PARENT, start_method, kind, SHAREDMEM_LINGER=60, **{MARK: mark})
    assert said == "3000.0"


def test_a_parent_that_imports_the_library_by_reading_with_linger_off(mark):
    said = check_python(LATE_PARENT, "spawn", "SimpleQueue", SHAREDMEM_LINGER=0, **{MARK: mark})
    assert said == "StaleHandleError"


# Linger is off below: the worker must have found the arena of its parent.
LATE_IMPORT = """
import multiprocessing, sys
import workers
context = multiprocessing.get_context("forkserver")
first = context.Process(target=workers.echo, args=(1,))
first.start()
first.join(60)
import sharedmem
a = sharedmem.zeros(10)
queue = context.SimpleQueue()
worker = context.Process(target=workers.put_full, args=(queue, 1000, 3.0))
worker.start()
worker.join(60)
print(queue.get().sum())
worker = context.Process(target=workers.increment, args=(a,))
worker.start()
worker.join(60)
print(a.sum())
queue.close()
"""


def test_a_fork_server_that_was_started_before_the_import(mark):
    assert check_python(LATE_IMPORT, SHAREDMEM_LINGER=0, **{MARK: mark}).split() == ["3000.0", "10.0"]


LATE_POOL = """
import multiprocessing, sys
import workers
context = multiprocessing.get_context(sys.argv[1])
with context.Pool(2) as pool:
    pool.map(workers.echo, range(4))
    import sharedmem
    a = sharedmem.zeros(100)
    pool.map(workers.increment, [a[i:i + 10] for i in range(0, 100, 10)])
    made = pool.starmap(workers.full, [(10, 1.0), (10, 2.0), (10, 3.0)])
    pool.close()
    pool.join()
print(a.sum(), *(b.sum() for b in made))
"""


@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_pool_that_was_started_before_the_import(mark, start_method):
    said = check_python(LATE_POOL, start_method, **{MARK: mark})
    assert said == "100.0 10.0 20.0 30.0"


LOKY = """
import sys
if sys.argv[1] == "first":
    import sharedmem
from loky import get_reusable_executor
import sharedmem
import workers
executor = get_reusable_executor(2)
a = sharedmem.zeros(1000)
print(executor.submit(workers.increment, a).result(60).sum(), a.sum())
made = [future.result(60).sum() for future in
        [executor.submit(workers.full, 1000, float(i)) for i in range(10)]]
print(*made)
executor.shutdown()
"""

JOBLIB = """
import sys
if sys.argv[1] == "first":
    import sharedmem
from joblib import Parallel, delayed
import sharedmem
import workers
a = sharedmem.zeros(1000)
Parallel(n_jobs=2)(delayed(workers.increment)(a[i::10]) for i in range(10))
made = Parallel(n_jobs=2)(delayed(workers.full)(1000, float(i)) for i in range(10))
print(a.sum(), a.sum())
print(*(b.sum() for b in made))
from joblib.externals.loky import get_reusable_executor
get_reusable_executor().shutdown()
"""


@pytest.mark.parametrize("order", ["first", "last"])
@pytest.mark.parametrize(("module", "code"), [("loky", LOKY), ("joblib", JOBLIB)], ids=["loky", "joblib"])
def test_results_of_loky_and_joblib_workers(mark, module, code, order):
    pytest.importorskip(module)
    status, out, err = run_python(code, order, SHAREDMEM_LINGER=60, **{MARK: mark})
    assert status == 0, err.decode()
    first, made = out.decode().splitlines()
    assert first == "1000.0 1000.0"
    assert made.split() == [f"{1000.0 * i}" for i in range(10)]
