"""Building once on a host, whichever process calls, dies or is interrupted meanwhile."""

import collections
import contextlib
import logging
import os
import signal
import threading
import time

import numpy as np
import pytest
import support
import workers
from building import BUILDER, WAITER, go_on, programs
from naming import ended, killed, own_names, program, said  # noqa: F401

import sharedmem


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


def test_sixty_four_at_once_build_once(tmp_path):
    """Each process writes its number into a file when it builds, and all have the same memory."""
    builders = tmp_path / "builders"

    def build():
        with open(builders, "a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.5)
        return np.arange(1000)

    def child(number):
        os.read(begin, 1)
        a = sharedmem.get_or_create("of many", build, readonly=False)
        assert (a == np.arange(1000)).sum() >= 936  # each of the others may have written its element
        a[number] = -1
        os.write(there, b"x")
        os.read(end, 1)

    (begin, go), (came, there), (end, leave) = os.pipe(), os.pipe(), os.pipe()
    pids = []
    for number in range(64):
        if (pid := os.fork()) == 0:
            os.close(go)
            os.close(leave)
            workers.exit_with(lambda number=number: child(number))
        pids.append(pid)
    os.close(go)
    for _ in pids:
        assert os.read(came, 1) == b"x"
    (info,) = sharedmem.names()
    assert sorted(info.processes) == sorted(pids)
    assert (sharedmem.attach("of many")[:64] == -1).all()
    os.close(leave)
    assert {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids} == {0}
    assert [int(line) for line in builders.read_text().split()] == [info.pid]
    for descriptor in (begin, came, there, end):
        os.close(descriptor)


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


def test_a_killed_builder_is_replaced_and_no_caller_fails():
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


def test_a_thread_that_ends_while_it_builds_leaves_the_building_to_others():
    """Its process lives on, so that only the thread itself can say that it has given up."""
    begun = threading.Event()

    def build():
        begun.set()
        raise SystemExit

    def build_and_end():
        with contextlib.suppress(SystemExit):
            sharedmem.get_or_create("of a thread", build)

    thread = threading.Thread(target=build_and_end)
    thread.start()
    begun.wait()
    assert sharedmem.get_or_create("of a thread", lambda: 5, timeout=60) == 5
    thread.join()


@pytest.mark.parametrize(
    "end",
    [
        "os._exit(0)",
        "os.execv('/bin/sleep', ['sleep', '300'])",
        "os.kill(os.getpid(), 11)",
        "sys.exit()",
        "import workers; workers.interrupt(); time.sleep(60)",
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


#: For this program no time passes, so that it never logs that it waits: logging would notice Ctrl-C as well.
INTERRUPTED = """
import itertools, threading, types, workers, sharedmem._names
threading.Timer(0.5, workers.interrupt).start()
sharedmem._names.time = types.SimpleNamespace(monotonic=itertools.repeat(0.0).__next__)
"""


def test_control_c_interrupts_a_waiting_caller_at_once():
    with program(BUILDER) as builder:
        assert said(builder) == "builds"
        with program(WAITER.replace("a = ", f"{INTERRUPTED}a = ", 1)) as waiter:
            assert said(waiter) == "asks"
            assert "KeyboardInterrupt" in waiter.communicate(timeout=60)[1]
        go_on(builder)
        assert said(builder) == "7.0"


def test_a_builder_that_is_stopped_is_waited_for_until_the_timeout():
    with program(BUILDER) as builder:
        assert said(builder) == "builds"
        builder.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(
            TimeoutError, match=f"process {builder.pid} has been building this name for .* s: 'x'"
        ):
            sharedmem.get_or_create("x", lambda: 1, timeout=0.5)
        assert time.monotonic() - began >= 0.5
        with pytest.raises(TimeoutError):
            sharedmem.get_or_create("x", lambda: 1, timeout=0)
        with pytest.raises(FileNotFoundError, match=f"being built by process {builder.pid} since"):
            sharedmem.attach("x", timeout=0.1)
        assert sharedmem.get_or_create("another", lambda: 1) == 1
        assert len(sharedmem.create("one more", 3)) == 3
        builder.send_signal(signal.SIGCONT)
        go_on(builder)
        assert said(builder) == "7.0"
        assert sharedmem.get_or_create("x", lambda: 1, timeout=0)[0] == 7


def test_a_long_wait_is_logged(caplog, monkeypatch):
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


def test_a_builder_that_needs_its_own_name_gets_an_error():
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


def test_invalid_arguments():
    with pytest.raises(TypeError, match="callable"):
        sharedmem.get_or_create("x", 5)
    with pytest.raises(ValueError, match="empty"):
        sharedmem.get_or_create("", lambda: 1)


def test_after_all_processes_have_ended_it_is_built_again():
    assert sharedmem.get_or_create("anew", lambda: 1) == 1
    assert sharedmem.get_or_create("anew", lambda: 2) == 2


def test_a_name_that_is_there_is_found_without_modules_that_are_slow_to_import():
    """Sixty-four workers that have been started for one table would import them all at once."""
    a = sharedmem.create("imports", 3)
    code = """
sharedmem.names()
before = set(sys.modules)
sharedmem.get_or_create("imports", lambda: 1 / 0)
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(new <= {"sharedmem"}, "logging" in sys.modules)
"""
    with program(code) as other:
        assert ended(other) == "True False\n"
    del a
