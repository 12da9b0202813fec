"""Which code sharedmem.allocator applies to: nested blocks, threads, tasks; and wrong use of it."""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import pickle
import sys
import threading

import numpy as np
import pytest
import support

import sharedmem
from sharedmem import is_shared

try:
    from numpy._core.multiarray import get_handler_name, get_handler_version
except ImportError:  # NumPy 1
    from numpy.core.multiarray import get_handler_name, get_handler_version


@pytest.fixture
def allocator():
    return sharedmem.allocator()


def test_outside_of_the_block_nothing_changes(allocator):
    default = get_handler_name()
    with allocator:
        assert get_handler_name() == "sharedmem"
        assert get_handler_version() == 1
        a = np.ones(3)
    assert get_handler_name() == default
    assert get_handler_name(a) == "sharedmem"
    assert not is_shared(np.ones(3))
    b = a + 1
    assert not is_shared(b)


# -- nesting and contexts


def test_reentrant_and_usable_again(allocator):
    default = get_handler_name()
    for _ in range(3):
        with allocator as entered, allocator, sharedmem.allocator(zeros=True):
            assert entered is allocator
            assert is_shared(np.zeros(3))
        with allocator:
            with sharedmem.allocator(zeros=True):
                pass
            assert is_shared(np.ones(3))
            assert not is_shared(np.zeros(3))
        assert get_handler_name() == default


def test_blocks_that_end_in_another_order(allocator):
    def turns(how):
        with how:
            yield
            yield

    default = get_handler_name()
    first, second = turns(allocator), turns(sharedmem.allocator(zeros=True))
    next(first)
    next(second)
    first.close()
    assert is_shared(np.zeros(3))  # the second is open still
    second.close()
    assert get_handler_name() == default


def test_an_exception_passes(allocator):
    default = get_handler_name()
    with pytest.raises(ZeroDivisionError), allocator:
        1 / 0  # noqa: B018
    assert get_handler_name() == default


def test_threads_and_tasks(allocator):
    found = {}

    def look(key):
        found[key] = is_shared(np.ones(3))

    async def task(key, how):
        with how:
            await asyncio.sleep(0.001)
            look(key)
        await asyncio.sleep(0)
        look(key + " after")

    async def run():
        with allocator:
            started = asyncio.create_task(task("task", contextlib.nullcontext()))
            await asyncio.to_thread(look, "to_thread")
        look("coroutine after")
        await asyncio.gather(
            started, task("one", allocator), task("two", allocator), task("no", contextlib.nullcontext())
        )

    with allocator:
        thread = threading.Thread(target=look, args=("thread",))
        thread.start()
        thread.join()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pool.submit(look, "pool").result()
            pool.submit(contextvars.copy_context().run, look, "copied context").result()
    asyncio.run(run())
    # New threads inherit the context in builds without the GIL since Python 3.14.
    inherits = getattr(sys.flags, "thread_inherit_context", 0) != 0
    assert found == {
        "thread": inherits,
        "pool": inherits,
        "copied context": True,
        "to_thread": True,
        "coroutine after": False,
        "task": True,
        "task after": True,
        "one": True,
        "one after": False,
        "two": True,
        "two after": False,
        "no": False,
        "no after": False,
    }


def test_one_allocator_in_many_threads(allocator):
    failed = []

    def work():
        for _ in range(200):
            with allocator:
                a = np.ones(10)
            if not is_shared(a) or is_shared(np.ones(10)):
                failed.append(threading.current_thread())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(support.TIMEOUT)
    assert failed == []


def test_blocks_of_two_threads_that_overlap(allocator):
    entered, left, found = threading.Event(), threading.Event(), []

    def work():
        with sharedmem.allocator(zeros=True):
            entered.set()
            left.wait(support.TIMEOUT)
            found.append(is_shared(np.zeros(3)))
        found.append(is_shared(np.ones(3)))

    thread = threading.Thread(target=work)
    with allocator:
        thread.start()
        assert entered.wait(support.TIMEOUT)
    found.append(is_shared(np.ones(3)))
    left.set()
    thread.join(support.TIMEOUT)
    assert found == [False, True, False]


def test_arrays_go_from_thread_to_thread(allocator):
    made = []

    def make(n):
        with allocator:
            made.extend(np.full(1000, n) for _ in range(100))

    threads = [threading.Thread(target=make, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(support.TIMEOUT)
    assert sum(int(a[0]) for a in made) == 600
    made.clear()
    sharedmem.arena.check()


# -- wrong use


def test_wrong_arguments():
    with pytest.raises(TypeError):
        sharedmem.allocator(True)
    with pytest.raises(TypeError):
        sharedmem.allocator(size=3)
    with pytest.raises(ValueError, match="truth value"):
        sharedmem.allocator(zeros=np.ones(2))
    with pytest.raises(TypeError):
        pickle.dumps(sharedmem.allocator())
    with pytest.raises(TypeError):
        type("Sub", (sharedmem.allocator,), {})


def test_left_where_it_was_not_entered(allocator):
    default = get_handler_name()
    with pytest.raises(RuntimeError, match="not entered in this context"):
        allocator.__exit__(None, None, None)
    with allocator:
        with pytest.raises(RuntimeError, match="not entered in this context"):
            sharedmem.allocator().__exit__(None, None, None)
        with pytest.raises(RuntimeError, match="not entered in this context"):
            contextvars.Context().run(allocator.__exit__, None, None, None)
        assert is_shared(np.ones(3))
    with pytest.raises(RuntimeError, match="not entered in this context"):
        allocator.__exit__(None, None, None)
    assert get_handler_name() == default
