"""What cannot be loaded is an error of its task: no Pool waits for ever, and none loses its workers."""

import multiprocessing
import os
import pickle
from collections import Counter, OrderedDict
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.pool import ThreadPool

import numpy as np
import pytest
import workers
from support import QUICKEST, TIMEOUT, needs_64_bit, settle

import sharedmem

ERRORS = [PermissionError(13, "why not"), EOFError("nothing"), MemoryError("none left"), ValueError("stale")]


class Fails:
    """Cannot be loaded."""

    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        return fail, (type(self.error), self.error.args)


def fail(kind, args):
    raise kind(*args)


class FailsIn(Fails):
    """Cannot be loaded in one process."""

    def __init__(self, error, pid):
        super().__init__(error)
        self.pid = pid

    def __reduce__(self):
        return fail_in, (self.pid, type(self.error), self.error.args)


def fail_in(pid, kind, args):
    if os.getpid() == pid:
        raise kind(*args)


def total(things):
    return float(things[0].sum())


def send_back(things):
    a, error, pid = things
    a += 1
    return a, FailsIn(error, pid)


WAYS = {
    "apply": lambda pool, function, thing: pool.apply_async(function, (thing,)).get(TIMEOUT),
    "keywords": lambda pool, function, thing: pool.apply_async(function, (), {"things": thing}).get(TIMEOUT),
    "map": lambda pool, function, thing: pool.map_async(function, [thing, thing]).get(TIMEOUT)[1],
    "starmap": lambda pool, function, thing: pool.starmap_async(function, [(thing,)]).get(TIMEOUT)[0],
    "imap": lambda pool, function, thing: pool.imap(function, [thing]).next(TIMEOUT),
    "chunks": lambda pool, function, thing: next(pool.imap(function, [thing] * 4, chunksize=2)),
    "unordered": lambda pool, function, thing: pool.imap_unordered(function, [thing]).next(TIMEOUT),
}


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_errors_of_loading_a_task_reach_the_caller(context, error):
    a = sharedmem.ones(10)
    with context.Pool(1) as pool:
        pid = pool.apply_async(os.getpid).get(TIMEOUT)
        for way in WAYS.values():
            with pytest.raises(type(error)) as caught:
                way(pool, total, (a, Fails(error)))
            assert caught.value.args == error.args
            assert way(pool, total, (a,)) == 10
        assert pool.apply_async(os.getpid).get(TIMEOUT) == pid  # the worker is the same


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_errors_of_loading_a_result_reach_the_caller(context, error):
    a = sharedmem.zeros(10)
    with context.Pool(1) as pool:
        for name, way in WAYS.items():
            if name != "keywords":
                with pytest.raises(type(error)) as caught:
                    way(pool, send_back, (a, error, os.getpid()))
                assert caught.value.args == error.args
        assert (a > 0).all()
        assert WAYS["apply"](pool, total, (a,)) == a.sum()


def test_the_arrays_of_what_failed_are_given_back():
    arrays = [sharedmem.ones(1000) for _ in range(5)]
    error = OSError(12, "no room")
    settle()
    leases = sharedmem.stats()["leases"]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for things in ([*arrays, Fails(error)], [Fails(error), *arrays], [*arrays, Fails(error), *arrays]):
            with pytest.raises(OSError, match="no room"):
                WAYS["apply"](pool, total, things)
        for things in arrays:
            with pytest.raises(OSError, match="no room"):
                WAYS["apply"](pool, send_back, (things, error, os.getpid()))
        assert sharedmem.stats()["leases"] == leases


@pytest.mark.parametrize("kind", ["array", "buffer"])
def test_the_memory_of_carried_data_of_what_failed_is_given_back(kind):
    data = np.ones(10_000)
    if kind == "buffer":
        data = pytest.importorskip("pyarrow").py_buffer(data)
    error = Fails(OSError(12, "no room"))
    with sharedmem.transport(1), multiprocessing.get_context(QUICKEST).Pool(1) as pool:
        settle()
        leases = sharedmem.stats()["leases"]
        for things in ([data, error], [error, data], [error, data, data]):
            with pytest.raises(OSError, match="no room"):
                WAYS["apply"](pool, total, things)
            assert sharedmem.stats()["leases"] == leases


class Nested:
    """An object with everything that a pickle can hold."""

    def __init__(self, a, pid):
        self.a, self.set, self.list = a, {1, "x"}, [a, {"a": a}]
        self.number, self.function, self.bytes = 1.5 + 2j, total, bytearray(b"abc")
        self.counts, self.names = Counter("abca"), OrderedDict(a=a)
        self.error = FailsIn(OSError(5, "five"), pid)


def test_whatever_else_is_in_the_result(context):
    a = sharedmem.ones(10)
    with context.Pool(1) as pool:
        with pytest.raises(OSError, match="five"):
            pool.apply_async(Nested, (a, os.getpid())).get(TIMEOUT)
        assert WAYS["apply"](pool, total, (a,)) == 10


def leave_no_address_space():
    import resource

    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    limit = used + (1 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


@needs_64_bit
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_worker_without_address_space_for_the_arena(method):
    with multiprocessing.get_context(method).Pool(1, leave_no_address_space) as pool:
        for _ in range(3):
            with pytest.raises(OSError, match=r"address space.*ulimit -v"):
                pool.apply_async(workers.echo, (sharedmem.ones(10),)).get(TIMEOUT)
        assert pool.apply_async(workers.echo, (3,)).get(TIMEOUT) == 3


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_errors_of_loading_a_task_reach_the_caller_of_an_executor(context, error):
    a = sharedmem.ones(10)
    with ProcessPoolExecutor(1, context) as executor:
        pid = executor.submit(os.getpid).result(TIMEOUT)
        for _ in range(2):
            with pytest.raises(type(error)) as caught:
                executor.submit(total, things=(a, Fails(error))).result(TIMEOUT)
            assert caught.value.args == error.args
            assert executor.submit(total, (a,)).result(TIMEOUT) == 10
            assert list(executor.map(total, [(a,), (a,)], chunksize=2)) == [10, 10]
        assert executor.submit(os.getpid).result(TIMEOUT) == pid


@needs_64_bit
def test_an_executor_without_address_space_for_the_arena():
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=leave_no_address_space) as executor:
        for _ in range(2):
            with pytest.raises(OSError, match=r"address space.*ulimit -v"):
                executor.submit(workers.echo, sharedmem.ones(10)).result(TIMEOUT)
        assert executor.submit(workers.echo, 3).result(TIMEOUT) == 3


def test_an_executor_reports_results_that_cannot_be_loaded():
    with ProcessPoolExecutor(1) as executor:
        future = executor.submit(send_back, (sharedmem.ones(10), OSError(5, "five"), os.getpid()))
        with pytest.raises(BrokenProcessPool) as caught:
            future.result(TIMEOUT)
    assert "five" in str(caught.value.__cause__)


def test_pools_of_threads_pickle_nothing():
    a = sharedmem.ones(10)
    with ThreadPool(1) as pool:
        assert pool.apply_async(workers.echo, (a,)).get(TIMEOUT) is a


def add(a, b):
    return float((a + b).sum())


def test_tasks_without_arrays_are_sent_as_usual(monkeypatch, context):
    from multiprocessing.reduction import ForkingPickler

    sent = []
    dumps = ForkingPickler.dumps
    with context.Pool(1) as pool:
        monkeypatch.setattr(ForkingPickler, "dumps", lambda obj, *_: sent.append(obj) or dumps(obj))
        assert pool.apply_async(workers.echo, ("text",)).get(TIMEOUT) == "text"
        assert [task[2] for task in sent if isinstance(task, tuple)] == [workers.echo]
        a = sharedmem.ones(10)
        assert pool.starmap_async(add, [(a, a)]).get(TIMEOUT) == [20]
    assert pickle.loads(pickle.dumps(sent[0])) == sent[0]


class Subclass(sharedmem.SharedArray):
    pass


@pytest.mark.parametrize("kind", [[("x", "f8"), ("y", "i4")], "M8[ns]", Subclass], ids=str)
def test_arrays_whose_dtype_or_class_travels_apart_are_given_back_too(kind):
    a = sharedmem.zeros(100).view(kind) if kind is Subclass else sharedmem.empty(100, kind)
    settle()
    leases = sharedmem.stats()["leases"]
    with (
        multiprocessing.get_context(QUICKEST).Pool(1) as pool,
        pytest.raises(OSError, match="no room"),
    ):
        WAYS["apply"](pool, total, [Fails(OSError(12, "no room")), a, a[1:]])
    assert sharedmem.stats()["leases"] == leases
