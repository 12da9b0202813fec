"""Locks, events and conditions by name: unrelated processes have the same one."""

import json
import os
import pickle
import threading
import warnings

import commands
import numpy as np
import pytest
import support
from naming import ended, killed, own_names, program, said  # noqa: F401

import sharedmem
from sharedmem import Condition, Event, Lock, RLock

HOLD = """
lock = getattr(sharedmem, sys.argv[1])(name=sys.argv[2])
lock.acquire()
print("held", flush=True)
sys.stdin.readline()
lock.release()
print("released", flush=True)
sys.stdin.readline()
"""


def others():
    """The names there are, but the one that the whole module has."""
    return [info for info in sharedmem.names() if info.name != "first"]


def go_on(process):
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.parametrize("kind", ["RLock", "Lock", "Condition"])
def test_a_stranger_has_the_same_lock(kind):
    lock = getattr(sharedmem, kind)(name="one")
    with program(HOLD, kind, "one") as other:
        assert said(other) == "held"
        assert not lock.acquire(False)
        assert not lock.acquire(True, 0.05)
        go_on(other)
        assert said(other) == "released"
        assert lock.acquire(True, 60)
        lock.release()


@pytest.mark.parametrize("kind", ["RLock", "Lock", "Condition"])
def test_a_killed_owner_hands_it_on_with_a_warning(kind):
    lock = getattr(sharedmem, kind)(name="of the dead")
    with program(HOLD, kind, "of the dead") as other:
        assert said(other) == "held"
        waiting = threading.Timer(0.2, killed, [other])
        waiting.start()
        with pytest.warns(RuntimeWarning, match="ended while it held this lock"):
            assert lock.acquire(True, 60)
        waiting.join()
    lock.release()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert getattr(sharedmem, kind)(name="of the dead").acquire(False)
    lock.release()


def test_nothing_is_left_when_the_only_owner_is_killed():
    with program(HOLD, "RLock", "gone") as other:
        assert said(other) == "held"
        assert [(info.name, info.kind, info.nbytes) for info in others()] == [("gone", "RLock", 64)]
        killed(other)
    support.wait_until(lambda: others() == [])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a new lock, without a dead owner
        with RLock(name="gone"):
            pass
    assert others() == []


def test_many_strangers_at_once_have_one_lock():
    counter = sharedmem.create("counter", 1, "i8")
    code = """
counter = sharedmem.attach("counter")
for n in range(200):
    with sharedmem.Lock(name="guard"):
        counter[0] += 1
"""
    programs = [program(code) for _ in range(6)]
    running = [each.__enter__() for each in programs]
    try:
        for process in running:
            ended(process)
    finally:
        for each in programs:
            each.__exit__(None, None, None)
    assert counter[0] == 1200
    assert [info.name for info in others()] == ["counter"]


def test_threads_that_open_one_name_at_once_have_one_lock():
    found, begin = [], threading.Barrier(8)

    def open_it():
        begin.wait()
        found.append(RLock(name="of threads"))

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    with found[0]:
        assert all(lock._is_owned() for lock in found)


def test_one_process_may_open_it_twice():
    first, second = RLock(name="twice"), RLock(name="twice")
    with first:
        assert second._is_owned()
        with second:
            assert first.acquire(False)
            first.release()
    plain, again = Lock(name="twice, plain"), Lock(name="twice, plain")
    with plain:
        assert not again.acquire(False)


def test_an_event_reaches_a_stranger():
    event = Event(name="go")
    assert not event.is_set()
    with program(
        "event = sharedmem.Event(name='go'); print('waits', flush=True); print(event.wait(60))\nevent.clear()"
    ) as other:
        assert said(other) == "waits"
        event.set()
        assert ended(other).strip() == "True"
    assert not event.is_set()
    assert not Event(name="go").is_set()


def test_a_condition_reaches_a_stranger():
    ready = Condition(name="ready")
    number = sharedmem.create("number", 1, "i8")
    with program(
        "ready, number = sharedmem.Condition(name='ready'), sharedmem.attach('number')\n"
        "with ready:\n"
        "    print('waits', flush=True)\n"
        "    print(ready.wait_for(lambda: number[0] == 5, 60))"
    ) as other:
        assert said(other) == "waits"
        for n in range(1, 6):
            with ready:
                number[0] = n
                ready.notify()
        assert ended(other).strip() == "True"


@pytest.mark.parametrize("kind", [RLock, Lock, Condition, Event])
def test_it_can_be_sent_and_a_message_keeps_the_name(kind):
    made = kind(name="sent")
    data = support.dumps(made)
    del made
    support.settle()
    assert [(info.name, info.kind) for info in others()] == [("sent", kind.__name__)]
    again = pickle.loads(data)
    same = kind(name="sent")
    if kind is Event:
        again.set()
        assert same.is_set()
    else:
        with again:
            assert same._is_owned() if kind is not Condition else same._lock._is_owned()
    del again, same
    assert others() == []


def test_a_forked_child_has_it_and_does_not_own_what_its_parent_holds():
    lock = RLock(name="forked")
    with lock:
        assert support.in_fork(lambda: os._exit(0 if not RLock(name="forked").acquire(False) else 1)) == 0
    assert support.in_fork(lambda: os._exit(0 if lock.acquire(False) else 1)) == 0
    with pytest.warns(RuntimeWarning, match="ended while it held"):
        lock.acquire()
    lock.release()


def test_processes_that_have_it_keep_it_after_unlink():
    old = RLock(name="renewed")
    other = RLock(name="renewed")
    sharedmem.unlink("renewed")
    new = RLock(name="renewed")
    with old:
        assert other._is_owned()
        assert not new._is_owned()


def test_a_held_lock_keeps_its_name():
    RLock(name="held").acquire()
    support.settle()
    assert [info.name for info in others()] == ["held"]
    RLock(name="held").release()
    assert others() == []


def test_other_things_of_that_name():
    array = sharedmem.create("array", (3, 4))
    field = sharedmem.create("fields", 1, [("sharedmem", "V64")])
    lock = RLock(name="lock")
    assert [(info.name, info.kind) for info in others()] == [
        ("array", "array"),
        ("fields", "array"),
        ("lock", "RLock"),
    ]
    for make in RLock, Lock, Event, Condition:
        with pytest.raises(ValueError, match=r"refers to an array, float64 \(3, 4\), not to a sharedmem"):
            make(name="array")
        with pytest.raises(ValueError, match="refers to an array"):
            make(name="fields")
        if make is not RLock:
            with pytest.raises(ValueError, match=r"refers to a sharedmem\.RLock, not to"):
                make(name="lock")
    for ask in (
        lambda: sharedmem.attach("lock"),
        lambda: sharedmem.attach("lock", readonly=True, timeout=1),
        lambda: sharedmem.get_or_create("lock", lambda: np.ones(3)),
    ):
        with pytest.raises(TypeError, match=r"sharedmem\.RLock\(name='lock'\)"):
            ask()
    with pytest.raises(FileExistsError, match=r"that of a sharedmem\.RLock"):
        sharedmem.create("lock", 3)
    assert sharedmem.attach("fields").dtype == field.dtype
    assert array.sum() == 0
    with lock:
        pass


@pytest.mark.parametrize("make", [RLock, Lock, Event, Condition])
def test_invalid_names(make):
    for name in 3, b"lock":
        with pytest.raises(TypeError, match="a name is a str"):
            make(name=name)
    for name in "", "x" * 256, "a\0b":
        with pytest.raises(ValueError, match="name"):
            make(name=name)
    with pytest.raises(TypeError):
        make("a name must be named, so that it is not taken for a lock")


def test_a_condition_has_a_name_or_a_lock():
    with pytest.raises(ValueError, match="either a name or a lock"):
        Condition(RLock(), name="both")
    assert others() == []


def test_an_array_that_only_says_that_it_is_a_lock():
    forged = sharedmem.create("forged", 1, [("sharedmem.RLock", "V64")])
    with pytest.raises(ValueError):
        RLock(name="forged")
    del forged


def test_info_says_what_the_name_refers_to():
    made = [RLock(name="a lock"), Event(name="an event")]
    with program(
        "lock = sharedmem.RLock(name='a lock'); print('has', flush=True); sys.stdin.read()"
    ) as other:
        assert said(other) == "has"
        status, out, err = commands.run("info", related=True)
        assert (status, err) == (0, "")
        lines = [line for line in out.splitlines() if line.rstrip().endswith("a lock")]
        assert [commands.without_lines(line).split()[3] for line in lines] == ["RLock"]
        status, out, err = commands.run("info", "--json", related=True)
    kinds = {
        name["name"]: name["kind"] for arena in json.loads(out)["arenas"] for name in arena.get("names") or ()
    }
    assert kinds["a lock"] == "RLock"
    assert len(made) == 2
