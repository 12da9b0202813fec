"""Calls of queues that end by an exception after they have put or taken messages."""

import dataclasses
import os
import signal
import threading

import pytest

import sharedmem


class Unloadable:
    def __reduce__(self):
        return int, ("no number",)


class Interrupting:
    """Loading it is what Ctrl-C interrupts."""

    def __reduce__(self):
        return interrupt, ()


def interrupt():
    raise KeyboardInterrupt


class Alarm(Exception):
    pass


def test_put_many_that_a_signal_interrupts_tells_how_many_it_has_put():
    def ring(*_):
        raise Alarm

    before = signal.signal(signal.SIGUSR1, ring)
    leases = sharedmem.stats()["leases"]
    try:
        q = sharedmem.Queue(2)
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        with pytest.raises(Alarm) as caught:
            q.put_many([sharedmem.full(1000, i) for i in range(5)])
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert caught.value.put_before == 2
    assert [a[0] for a in q.get_many(block=False)] == [0, 1]
    del q
    assert sharedmem.stats()["leases"] == leases  # what was not put was given back


@pytest.mark.parametrize(
    "broken", [[Interrupting()], [Unloadable(), Interrupting()]], ids=["alone", "second"]
)
def test_ctrl_c_while_messages_are_loaded_is_raised_with_the_other_messages(broken):
    q = sharedmem.Queue()
    q.put_many([1, *broken, 3])
    with pytest.raises(KeyboardInterrupt) as caught:
        q.get_many()
    assert caught.value.messages == [1, 3]
    assert q.empty()


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """No attribute can be set."""

    why: str = ""


class WithProperty(Exception):
    """As Django's ValidationError."""

    @property
    def messages(self):
        return ["its own"]

    put_before = messages


class Raising:
    def __init__(self, kind):
        self.kind = kind

    def __reduce__(self):
        return fail, (self.kind,)


def fail(kind):
    raise kind


def raised_by(kind, call):
    """The exception, whose class forbids the attribute or which is the cause of another one."""
    with pytest.raises((Frozen, RuntimeError)) as caught:
        call()
    assert kind in (type(caught.value), type(caught.value.__cause__))
    return caught.value


FORBIDDING = pytest.mark.parametrize("kind", [Frozen, WithProperty])


@FORBIDDING
def test_exceptions_that_forbid_attributes_lose_no_message(kind):
    q = sharedmem.Queue()
    q.put_many([1, Raising(kind), 3])
    assert raised_by(kind, q.get_many).messages == [1, 3]


@FORBIDDING
def test_exceptions_that_forbid_attributes_tell_how_many_were_put(kind):
    q = sharedmem.Queue(2)
    before = signal.signal(signal.SIGUSR1, lambda *_: fail(kind))
    try:
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        assert raised_by(kind, lambda: q.put_many(range(5))).put_before == 2
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
