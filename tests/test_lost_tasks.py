"""Tasks whose worker was killed before it had loaded them: their arrays do not stay for them."""

import collections
import multiprocessing
import os
import pickle
import time
import types
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from multiprocessing.reduction import ForkingPickler

import pytest
import support
from deadly import Deadly, die
from lost import leases, leases_before
from support import TIMEOUT, dumps, settle, wait_until

import sharedmem
from sharedmem import _in_flight
from sharedmem._transfers import lost_tasks

pytestmark = pytest.mark.needs_linux  # Windows does not tell that a reader has died

TASKS = 6
SOON = 20  # seconds in which the dead are noticed


def total(_, a):
    return float(a.sum())


def die_running(after, _):
    die(after)


def tasks(first=None):
    """Arguments of tasks: the only references to their arrays, which are loaded after `first`."""
    return [(first, sharedmem.ones(1000)) for _ in range(TASKS)]


def nothing_stays(before):
    """Also of leases that killed workers had taken over, which stay until memory is short."""

    def gone():
        settle()
        sharedmem.collect(leases=True)
        return leases() == before

    return wait_until(gone, SOON)


def of_multiprocessing(context):
    return ProcessPoolExecutor(2, mp_context=context)


def of_loky(context):
    return pytest.importorskip("loky").ProcessPoolExecutor(2)


def of_joblib(context):
    return pytest.importorskip("joblib.externals.loky").ProcessPoolExecutor(2)


EXECUTORS = pytest.mark.parametrize(
    ("make", "method"),
    [
        (of_multiprocessing, "fork"),
        (of_multiprocessing, "forkserver"),
        (of_multiprocessing, "spawn"),
        (of_loky, "spawn"),
        (of_joblib, "spawn"),
    ],
)


@EXECUTORS
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("when", ["loading", "running"])
def test_a_broken_executor_keeps_no_task(make, method, warm, when, tmp_path):
    """No worker dies before all tasks are submitted: CPython's `submit` fails while an executor breaks."""
    before = leases_before()
    executor = make(multiprocessing.get_context(method))
    if warm:  # the workers have imported the library, and take leases over as they read
        assert executor.submit(total, None, sharedmem.ones(10)).result(TIMEOUT) == 10
    all_submitted = tmp_path / "all submitted"
    after = os.fspath(all_submitted)
    function, first = (total, Deadly(after)) if when == "loading" else (die_running, after)
    futures = [executor.submit(function, *each) for each in tasks(first)]
    all_submitted.touch()
    assert all(isinstance(future.exception(TIMEOUT), BrokenExecutor) for future in futures)
    del futures
    executor.shutdown()
    assert nothing_stays(before), leases()


def test_an_executor_whose_workers_are_killed_on_purpose_keeps_no_task():
    before = leases_before()
    executor = of_loky(None)
    assert executor.submit(total, None, sharedmem.ones(10)).result(TIMEOUT) == 10
    futures = [executor.submit(time.sleep, 600) for _ in range(2)]
    futures += [executor.submit(total, *each) for each in tasks()]
    assert wait_until(lambda: leases() > before)
    executor.shutdown(kill_workers=True)
    del futures
    assert nothing_stays(before), leases()


@pytest.mark.parametrize("number", [1, 40])
def test_tasks_that_were_read_are_lost_with_their_readers(number):
    """Also when there are so many that the ledger of other connections would forget those that were read."""
    before = leases_before()
    reader, writer = multiprocessing.Pipe(duplex=False)
    _in_flight.to_workers(writer)
    loaded = sharedmem.ones(1000)
    for _ in range(number):
        writer.send(sharedmem.ones(1000))
        os.read(reader._handle, 1 << 16)  # as a process that has not imported this library
    writer.send(loaded)
    assert (reader.recv() == loaded).all()
    writer.close()
    reader.close()
    assert leases() == before + number
    assert _in_flight.workers_ended(writer) == number
    assert _in_flight.workers_ended(writer) == 0
    assert leases() == before


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("killed", [False, True])
def test_messages_that_tasks_pass_on_are_kept(method, pool, killed, tmp_path):
    """The first task of a worker that had not imported this library when it read the task."""
    support.check_python(
        """
import multiprocessing, os, pathlib, pickle, sys
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from multiprocessing.reduction import ForkingPickler
import sharedmem
method, pool, killed = sys.argv[1], sys.argv[2] == "True", sys.argv[3] == "True"
path = pathlib.Path(sys.argv[4])
context = multiprocessing.get_context(method)
data = bytes(ForkingPickler.dumps(sharedmem.full(1000, 2.0)))
if pool:
    workers = context.Pool(1)
    workers.apply(path.write_bytes, (data,))
    if not killed:
        workers.close()
    else:
        workers.terminate()
    workers.join()
else:
    workers = ProcessPoolExecutor(1, mp_context=context)
    workers.submit(path.write_bytes, data).result(60)
    if killed:
        workers.submit(os.abort).exception(60)
    workers.shutdown()
del data
sharedmem.collect()
assert pickle.loads(path.read_bytes()).sum() == 2000
""",
        method,
        str(pool),
        str(killed),
        os.fspath(tmp_path / "stored"),
    )


PLAIN = [
    *(
        None,
        True,
        3,
        300,
        1 << 20,
        1 << 40,
        1 << 3000,
        1.5,
        "a",
        "b" * 300,
        b"c",
        b"d" * 300,
        bytearray(b"e"),
    ),
    *([], [1], {}, {"f": 1}, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {1}, frozenset([2]), Deadly),
    *([b"g"] * 3, os.path.join, range(300), [object] * 300, collections.Counter),
]


@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("nested", [False, True])
def test_states_of_arrays_are_told_from_bytes_among_objects_of_all_kinds(nested, protocol):
    before = leases_before()
    reader, writer = multiprocessing.Pipe(duplex=False)
    _in_flight.to_workers(writer)
    a = sharedmem.ones(1000)
    message = [*PLAIN, dumps(a) if nested else a, *PLAIN]
    writer.send_bytes(bytes(ForkingPickler.dumps(message, protocol)))
    del message
    os.read(reader._handle, 1 << 20)
    writer.close()
    reader.close()
    assert _in_flight.workers_ended(writer) == (not nested)
    assert leases() == before + nested


@pytest.mark.parametrize("alive", [False, True])
def test_a_manager_that_raises_keeps_no_task_unless_a_worker_lives(alive):
    """As that of joblib 1.6.0, when it is told to kill its workers while tasks wait."""

    class Queue:
        def __init__(self):
            self._reader, self._writer = multiprocessing.Pipe(duplex=False)

    class Manager:
        def run(self):
            raise KeyError

    lost_tasks.watch_executor(types.SimpleNamespace(_SafeQueue=Queue, _ExecutorManagerThread=Manager))
    before = leases_before()
    manager, queue = Manager(), Queue()
    manager.call_queue = queue
    manager.processes = {1: types.SimpleNamespace(is_alive=lambda: alive)}
    queue._writer.send(sharedmem.ones(1000))
    queue._writer.close()
    with pytest.raises(KeyError):
        manager.run()
    assert leases() == before + alive
    lost_tasks._end(queue._writer)
    queue._reader.close()
    assert leases() == before


@pytest.mark.parametrize("module", ["multiprocessing", "multiprocess"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pool_keeps_no_task_beyond_its_end(module, method):
    """A worker that is killed is replaced, and its task is lost: no pool of these modules says so."""
    before = leases_before()
    pool = pytest.importorskip(module).get_context(method).Pool(1)
    for each in tasks(Deadly()):
        pool.apply_async(total, each)
    assert pool.apply_async(total, (None, sharedmem.ones(10))).get(TIMEOUT) == 10
    pool.terminate()
    pool.join()
    assert nothing_stays(before), leases()
