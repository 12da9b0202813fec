"""Calls of queues that end by an exception after they have put or taken messages."""

import dataclasses

import pytest
from alarms import alarms

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

    leases = sharedmem.stats()["leases"]
    q = sharedmem.Queue(2)
    with alarms(ring) as ring_after:
        ring_after(0.2)
        with pytest.raises(Alarm) as caught:
            q.put_many([sharedmem.full(1000, i) for i in range(5)])
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
    with alarms(lambda *_: fail(kind)) as ring_after:
        ring_after(0.2)
        assert raised_by(kind, lambda: q.put_many(range(5))).put_before == 2
