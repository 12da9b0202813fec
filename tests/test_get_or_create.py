"""What is made once on a host, whoever asks, fails, dies or is interrupted meanwhile."""

import collections
import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import threading
import time

import numpy as np
import pytest
import support
from naming import ended, killed, own_names, program, said  # noqa: F401

import sharedmem

#: A builder that says so, and goes on when it is told to.
BUILDER = """
def build():
    print("builds", flush=True)
    sys.stdin.readline()
    return np.full(1000, 7.0)
a = sharedmem.get_or_create("x", build)
print(a[0], flush=True)
sys.stdin.read()
"""

#: Another one, that waits and does not build unless it must.
WAITER = """
print("asks", flush=True)
a = sharedmem.get_or_create("x", lambda: print("builds too", flush=True) or np.full(1000, 8.0))
print(a[0], flush=True)
sys.stdin.read()
"""


def go_on(process):
    process.stdin.write("\n")
    process.stdin.flush()


@contextlib.contextmanager
def programs(code, count):
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(program(code)) for _ in range(count)]


def test_one_builds_and_all_get_its_array():
    with program(BUILDER) as builder:
        assert said(builder) == "builds"
        with programs(WAITER, 4) as waiters:
            assert {said(each) for each in waiters} == {"asks"}
            (info,) = sharedmem.names()
            assert (info.state, info.pid, info.shape, info.processes) == ("building", builder.pid, None, ())
            with pytest.raises(FileNotFoundError, match=f"being built by process {builder.pid} since"):
                sharedmem.attach("x")
            with pytest.raises(FileExistsError, match=f"being built by process {builder.pid} since"):
                sharedmem.create("x", 3)
            with pytest.raises(OSError, match=f"being built by process {builder.pid}") as refused:
                sharedmem.unlink("x")
            assert refused.value.errno == 16
            go_on(builder)
            assert {said(each) for each in [builder, *waiters]} == {"7.0"}
            (info,) = sharedmem.names()
            assert len(info.processes) == 5
    support.wait_until(lambda: sharedmem.names() == [])


def test_children_of_each_start_method(context):
    answers, ends = context.Queue(), context.Queue()
    children = [context.Process(target=child, args=("of children", answers, ends)) for _ in range(4)]
    for each in children:
        each.start()
    got = [answers.get(timeout=60) for _ in children]
    assert len({builder for _, builder in got}) == 1
    assert got[0][1] in {pid for pid, _ in got}
    for _ in children:
        ends.put(None)
    support.join(*children)


def child(name, answers, ends):
    a = sharedmem.get_or_create(name, lambda: time.sleep(0.2) or np.full(10, os.getpid()))
    answers.put((os.getpid(), int(a[0])))
    ends.get()


def test_threads_build_once():
    built, got = [], []

    def build():
        built.append(threading.get_ident())
        time.sleep(0.2)
        return np.arange(5.0)

    def ask():
        got.append(sharedmem.get_or_create("of threads", build))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert len({support.address(a) for a in got}) == 1


def test_a_builder_that_is_killed_is_replaced_and_nobody_fails():
    with contextlib.ExitStack() as stack:
        everybody = [stack.enter_context(program(BUILDER)) for _ in range(4)]
        for _ in range(3):
            ready = builder_of("x", everybody)
            assert said(ready) == "builds"
            everybody.remove(ready)
            killed(ready)
        last = builder_of("x", everybody)
        assert said(last) == "builds"
        go_on(last)
        assert said(last) == "7.0"
    support.wait_until(lambda: sharedmem.names() == [])


def builder_of(name, processes):
    """The one of the processes that builds; waits for it."""

    def found():
        pids = {info.pid for info in sharedmem.names() if info.name == name and info.state == "building"}
        return next((each for each in processes if each.pid in pids), None)

    support.wait_until(lambda: found() is not None)
    return found()


@pytest.mark.parametrize(
    "end",
    [
        "os._exit(0)",
        "os.execv('/bin/sleep', ['sleep', '300'])",
        "os.kill(os.getpid(), 11)",
        "sys.exit()",
        "raise KeyboardInterrupt",
    ],
)
def test_a_builder_that_ends_in_any_way_leaves_the_building_to_others(end):
    code = BUILDER.replace("    return np.full(1000, 7.0)", f"    {end}")
    with program(code) as builder:
        assert said(builder) == "builds"
        with program(WAITER) as waiter:
            assert said(waiter) == "asks"
            go_on(builder)
            assert said(waiter) == "builds too"
            assert said(waiter) == "8.0"


def test_an_exception_reaches_the_builder_and_all_who_wait():
    code = BUILDER.replace("    return np.full(1000, 7.0)", "    raise ValueError('é' * 10000)")
    waits = (
        "print('asks', flush=True)\n"
        "import pickle\n"
        "try:\n"
        "    sharedmem.get_or_create('x', lambda: print('builds too', flush=True) or np.ones(3))\n"
        "except sharedmem.BuildError as error:\n"
        "    again = pickle.loads(pickle.dumps(error))\n"
        "    assert str(again) == str(error) and again.pid == error.pid\n"
        "    text = str(error)\n"
        "    print(error.name, error.pid, len(text.encode()), text[:60], text[-5:], flush=True)\n"
    )
    with program(code) as builder:
        assert said(builder) == "builds"
        with programs(waits, 2) as waiters:
            assert {said(each) for each in waiters} == {"asks"}
            time.sleep(0.3)
            go_on(builder)
            assert "ValueError: éé" in builder.communicate(timeout=60)[1]
            for each in waiters:
                name, pid, length, *text = said(each).split()
                assert (name, int(pid)) == ("x", builder.pid)
                assert 1700 < int(length) < 1850
                assert " ".join(text).startswith(f"building 'x' failed in process {pid}: ValueError: é")
                assert text[-1].endswith("é...")
    a = sharedmem.get_or_create("x", lambda: np.ones(3))
    assert a[0] == 1


def test_control_c_reaches_who_waits_at_once():
    with program(BUILDER) as builder:
        assert said(builder) == "builds"
        with program(WAITER) as waiter:
            assert said(waiter) == "asks"
            time.sleep(0.3)
            waiter.send_signal(signal.SIGINT)
            assert "KeyboardInterrupt" in waiter.communicate(timeout=60)[1]
        go_on(builder)
        assert said(builder) == "7.0"


def test_a_builder_that_is_stopped_is_waited_for_until_the_timeout():
    with program(BUILDER) as builder:
        assert said(builder) == "builds"
        builder.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(TimeoutError, match=f"built by process {builder.pid} for .* s: 'x'"):
            sharedmem.get_or_create("x", lambda: 1, timeout=0.5)
        assert time.monotonic() - began >= 0.5
        with pytest.raises(TimeoutError):
            sharedmem.get_or_create("x", lambda: 1, timeout=0)
        builder.send_signal(signal.SIGCONT)
        go_on(builder)
        assert said(builder) == "7.0"
        assert sharedmem.get_or_create("x", lambda: 1, timeout=0)[0] == 7


def test_who_waits_for_long_says_so(caplog, monkeypatch):
    from sharedmem import _names

    release = threading.Event()
    thread = threading.Thread(
        target=lambda: sharedmem.get_or_create("slow", lambda: release.wait(60) and np.ones(3))
    )
    thread.start()
    try:
        support.wait_until(lambda: sharedmem.names() != [])
        times = iter([0.0, *np.arange(0, 10000, 6.0)])
        monkeypatch.setattr(_names, "time", collections.namedtuple("Clock", "monotonic")(lambda: next(times)))
        with caplog.at_level(logging.INFO, logger="sharedmem"), pytest.raises(TimeoutError):
            sharedmem.get_or_create("slow", lambda: 1, timeout=120)
    finally:
        monkeypatch.undo()
        release.set()
        thread.join()
    assert 2 <= len(caplog.messages) <= 5
    assert caplog.messages[0].startswith(
        f"waiting for 'slow', which process {os.getpid()} has been building for"
    )


def test_a_builder_that_asks_for_its_own_name_is_told():
    with pytest.raises(RuntimeError, match="would wait for itself"):
        sharedmem.get_or_create("own", lambda: sharedmem.get_or_create("own", lambda: 1))
    a = sharedmem.get_or_create("outer", lambda: sharedmem.get_or_create("inner", lambda: np.ones(3)) * 2)
    assert a[0] == 2


def test_a_forked_child_does_not_return_from_its_parents_building():
    def build():
        if (pid := os.fork()) != 0:
            os.waitpid(pid, 0)
            return np.ones(3)
        return np.zeros(3)

    caller = os.getpid()
    try:
        a = sharedmem.get_or_create("forked", build)
    except BaseException as error:
        if os.getpid() == caller:
            raise
        os._exit(0 if isinstance(error, RuntimeError) else 1)
    if os.getpid() != caller:
        os._exit(1)
    assert a[0] == 1


def test_processes_forked_by_a_builder_allocate_where_they_always_do():
    def build():
        with multiprocessing.get_context("fork").Pool(1) as pool:
            return pool.apply(where_new_arrays_lie) * np.ones(3)

    assert sharedmem.get_or_create("pool", build)[0] == 1


def where_new_arrays_lie():
    """1 if they lie in this process's own arena, as their handles say."""
    uuid = int(sharedmem.stats()["arena"][:16], 16).to_bytes(8, "little")
    return int(all(uuid in pickle.dumps(sharedmem.zeros(n)) for n in (3, 100_000)))


@pytest.mark.parametrize("size", [3, 10_000, 1_000_000])
def test_what_this_library_makes_meanwhile_is_not_copied(size):
    made = []

    def build():
        made.append(sharedmem.full(size, 3.0))
        made.append(made[0][:2])
        return made[0]

    a = sharedmem.get_or_create(f"not copied {size}", build, readonly=False)
    assert np.shares_memory(a, made[0])
    assert a.flags.writeable
    b = sharedmem.get_or_create(f"not copied {size}", build)
    assert len(made) == 2
    assert not b.flags.writeable


def test_a_part_of_an_array_is_named_without_a_copy(tmp_path):
    whole = []

    def build():
        whole.append(sharedmem.zeros((10, 4)))
        return whole[0][2:5]

    a = sharedmem.get_or_create("part", build, readonly=False)
    a[0, 0] = 5
    assert whole[0][2, 0] == 5
    np.save(tmp_path / "x.npy", np.arange(6.0))
    loaded = []
    b = sharedmem.get_or_create(
        "loaded", lambda: loaded.append(sharedmem.load(tmp_path / "x.npy")) or loaded[0], readonly=False
    )
    assert np.shares_memory(b, loaded[0])


@pytest.mark.parametrize(
    "made",
    [
        np.arange(12).reshape(3, 4),
        np.arange(12).reshape(3, 4).T,
        np.arange(12).reshape(3, 4)[::2, ::-1],
        np.ones((0, 3), "i2"),
        np.float64(5),
        [[1, 2], [3, 4]],
        np.array([(1, 2.0)], [("a", ">i2"), ("b", "f8")]),
        np.array(["a", "bcd"]),
    ],
    ids=str,
)
def test_anything_that_makes_an_array_is_copied(made):
    a = sharedmem.get_or_create("copied", lambda: made)
    assert sharedmem.is_shared(a)
    assert (a == np.asarray(made)).all()
    assert (a.dtype, a.shape) == (np.asarray(made).dtype, np.asarray(made).shape)
    assert a.flags.f_contiguous or a.flags.c_contiguous
    b = sharedmem.attach("copied", readonly=True)
    assert support.address(a) == support.address(b)


@pytest.mark.parametrize("made", [None, object(), np.array([None])], ids=str)
def test_what_is_no_array_of_items_is_refused(made):
    with pytest.raises(TypeError, match="pointers"):
        sharedmem.get_or_create("objects", lambda: made)
    assert sharedmem.get_or_create("objects", lambda: 1) == 1


def test_arguments_that_mean_nothing():
    with pytest.raises(TypeError, match="callable"):
        sharedmem.get_or_create("x", 5)
    with pytest.raises(ValueError, match="empty"):
        sharedmem.get_or_create("", lambda: 1)


def test_when_all_have_gone_it_is_built_anew():
    assert sharedmem.get_or_create("anew", lambda: 1) == 1
    assert sharedmem.get_or_create("anew", lambda: 2) == 2


def states(name):
    return [info.state for info in sharedmem.names() if info.name == name]


def test_a_failure_is_shown_until_somebody_asks():
    with pytest.raises(ZeroDivisionError):
        sharedmem.get_or_create("failed", lambda: 1 / 0)
    assert states("failed") == ["failed"]
    with pytest.raises(FileNotFoundError):
        sharedmem.attach("failed")
    a = sharedmem.create("failed", 3)
    assert states("failed") == ["ready"]
    del a
    with pytest.raises(ZeroDivisionError):
        sharedmem.get_or_create("failed", lambda: 1 / 0)
    sharedmem.unlink("failed")
    assert states("failed") == []


def test_nothing_of_a_failed_building_is_kept():
    before = sharedmem.stats()["live_blocks"]

    def build():
        sharedmem.zeros(1_000_000)
        raise ValueError

    with pytest.raises(ValueError):
        sharedmem.get_or_create("failed", build)
    assert sharedmem.stats()["live_blocks"] == before


def test_an_exception_without_a_text_leaves_the_name_to_others():
    class Silent(Exception):
        def __str__(self):
            raise KeyboardInterrupt

    def build():
        raise Silent

    with pytest.raises(KeyboardInterrupt):
        sharedmem.get_or_create("silent", build)
    assert states("silent") == []
    assert (sharedmem.get_or_create("silent", lambda: np.ones(3)) == 1).all()


def test_what_others_have_read_only_is_not_bound_writable():
    first = sharedmem.get_or_create("first", lambda: np.ones(1000))
    second = sharedmem.get_or_create("second", lambda: first, readonly=False)
    second[:] = 2
    assert (first == 1).all()


TRY_TWICE = """
def build():
    print("built", flush=True)
    time.sleep(0.5)
    raise ValueError
input()
for _ in range(2):
    try:
        sharedmem.get_or_create("fails twice", build)
    except (ValueError, sharedmem.BuildError):
        pass
"""


def test_who_tries_again_at_once_does_not_take_the_failure_from_those_who_wait():
    with contextlib.ExitStack() as stack:
        everybody = [stack.enter_context(program(TRY_TWICE)) for _ in range(8)]
        for process in everybody:
            process.stdin.write("\n")
            process.stdin.flush()
        assert sum(ended(process).count("built") for process in everybody) <= 4
