"""Messages of `dumps`: how long they keep their memory, and what `share`, `dumps` and `loads` refuse."""

import gc
import pickle
import socket
import sys
import threading

import numpy as np
import pytest
import workers
from object_ways import BOTH, leases, live, sent
from support import Remote, check_memory_message, needs_64_bit, private_memory, same, settle

import sharedmem
from sharedmem import StaleHandleError, dumps, loads, share


class Refuses:
    def __reduce__(self):
        raise RuntimeError("no")


class Calls:
    """Its pickle is what a function returns when it is pickled."""

    def __init__(self, function):
        self.function = function

    def __reduce__(self):
        return _itself, (self.function(),)


def _itself(value):
    return value


@pytest.fixture(autouse=True)
def _no_message_is_left():
    """Each test counts leases from zero."""
    sharedmem.revoke(0)
    yield
    sharedmem.revoke(0)


# -- how long a message is kept


def test_a_message_is_kept_until_it_is_loaded_once():
    before = leases()
    message = dumps([np.ones(100_000), np.ones(5)])
    assert leases() == before + 1
    sharedmem.collect(leases=True)
    got = loads(message)
    assert leases() == before
    assert got[0].sum() == 100_000
    again = loads(message)  # a process has the arrays
    assert np.shares_memory(again[1], got[1])
    del got, again
    with pytest.raises(StaleHandleError):
        loads(message)


def test_one_object_for_many_readers():
    s = share(np.arange(1000))
    messages = [dumps(s) for _ in range(5)]
    assert all(np.shares_memory(loads(message), s) for message in messages * 2)
    assert leases() == 0


def test_a_message_of_arrays_of_several_blocks():
    a, b = sharedmem.ones(100), np.asarray(sharedmem.full(100, 2.0))
    message = dumps([a, b, a[::2], b[::-1], np.full(100, 3.0), a, np.asarray(a)])
    expected = [100, 200, 50, 200, 300, 100, 100]
    del a, b
    settle()
    got = loads(message)
    assert [each.sum() for each in got] == expected
    assert leases() == 0
    assert np.shares_memory(got[0], got[6])
    assert type(got[6]) is np.ndarray


def test_a_message_that_fails_holds_nothing():
    before = leases(), live("bytes")
    with pytest.raises(RuntimeError, match="no"):
        dumps([sharedmem.ones(1000), np.ones(1000), np.asarray(sharedmem.ones(10)), Refuses()])
    assert (leases(), live("bytes")) == before


def test_revoke_gives_a_message_up():
    before = live("bytes")
    message = dumps(np.ones(100_000))
    assert sharedmem.revoke(0) == 1
    assert live("bytes") == before
    with pytest.raises(StaleHandleError):
        loads(message)


def test_share_and_dumps_in_the_middle_of_another_message():
    a = np.ones(1000)
    outer = dumps([Calls(lambda: share([a])[0]), Calls(lambda: dumps(a)), sharedmem.ones(10)])
    got = loads(outer)
    assert same(got[0], a)
    assert same(loads(got[1]), a)
    assert leases() == 0


def test_by_value():
    s = share({"a": np.arange(1000), "b": sharedmem.ones(10)})
    with sharedmem.pickle_by_value():
        message = dumps({"a": s["a"]})
        again = share(s)  # not a pickle that is kept
    assert b"sharedmem" not in message
    assert leases() == 0
    assert all(np.shares_memory(again[key], s[key]) for key in s)
    assert type(again["b"]) is sharedmem.SharedArray
    del again
    del s
    got = loads(message)["a"]
    assert not sharedmem.is_shared(got)
    assert got.sum() == 499500


def test_a_sender_that_ends_in_order(python, tmp_path):
    """A message over a socket between unrelated programs; nothing but the message holds the arrays."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        listening.listen()
        python(
            """
            import socket, sys
            import numpy as np
            import sharedmem
            x = {"a": np.arange(100_000.0), "b": np.ones((10, 10)), "name": "x"}
            message = sharedmem.dumps(x)
            del x
            with socket.socket(socket.AF_UNIX) as conn:
                conn.connect(sys.argv[1])
                conn.sendall(message)
            """,
            tmp_path / "socket",
        )
        with listening.accept()[0] as conn, conn.makefile("rb") as file:
            message = file.read()
    got = loads(message)
    assert got["a"].sum() == 4999950000
    assert got["b"].sum() == 100
    assert got["name"] == "x"
    del got
    with pytest.raises(StaleHandleError):
        loads(message)


def test_a_sender_that_is_killed():
    other = Remote()
    message = bytes.fromhex(other.call(workers.object_as_hex))
    other.kill()
    other.conn.close()
    got = loads(message)
    assert (got["a"].sum(), got["b"].sum()) == (3000, 4000)


def test_a_receiver_that_is_killed():
    before = live("bytes")
    got = share(np.zeros(1000))
    with Remote("spawn") as other:
        for _ in range(3):
            other.call(workers.hold_handle, "sent", dumps([got, np.ones(10_000)]))
        other.kill()
        other.wait()
    sharedmem.collect(leases=True)
    assert leases() == 0
    del got
    assert live("bytes") <= before


def test_memory_stays_flat_without_the_garbage_collector():
    obj = {
        "a": np.ones(10_000),
        "b": np.ones((100, 100))[::2],
        "c": np.asarray(sharedmem.ones(10)),
        "text": "x" * 1000,
    }
    shared = share(obj)

    def work():
        for each in (obj, shared):
            share(each)
            sent(each)
            with pytest.raises(RuntimeError):
                dumps([each, Refuses()])

    for _ in range(20):
        work()
    settle()
    gc.disable()
    try:
        before, blocks, messages = private_memory(), sharedmem.stats()["live_blocks"], leases()
        for _ in range(1000):
            work()
        assert private_memory() - before < 4 << 20  # each round has 80 kB
        assert sharedmem.stats()["live_blocks"] <= blocks
        assert leases() == messages
    finally:
        gc.enable()


# -- what does not work


@BOTH
@pytest.mark.parametrize("obj", [lambda: 0, threading.Lock(), sys, [np.ones(3), (x for x in "")]], ids=repr)
def test_what_cannot_be_pickled_raises_what_pickling_raises(way, obj):
    with pytest.raises(Exception) as expected:
        pickle.dumps(obj, 5)
    with pytest.raises(expected.type, match=r"pickle|lambda"):
        way(obj)


@pytest.mark.parametrize("data", [None, 5, "text", [b"bytes"], dumps], ids=repr)
def test_loads_takes_bytes(data):
    with pytest.raises(TypeError, match=f"not {type(data).__name__}"):
        loads(data)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, "u1")])
def test_loads_takes_anything_with_bytes(kind):
    assert loads(kind(dumps(np.arange(10)))).sum() == 45


def test_arguments_have_no_names():
    for function, value in ((share, 1), (dumps, 1), (loads, b"")):
        with pytest.raises(TypeError):
            function()
        with pytest.raises(TypeError):
            function(obj=value)


@needs_64_bit
@BOTH
def test_no_room_is_a_memory_error_with_the_numbers(way):
    before = live("bytes")
    large = [np.ones(8), np.broadcast_to(np.ones(1), (2**40,)), sharedmem.ones(8)]  # 8 TiB if it is copied
    with pytest.raises(MemoryError) as caught:
        way(large)
    check_memory_message(str(caught.value), 2**43 + 64)
    del large, caught
    assert (leases(), live("bytes")) == (0, before)


def test_the_limit_of_what_is_in_flight(python):
    assert python(
        """
        import numpy as np
        import sharedmem
        kept = sharedmem.dumps(np.ones(1 << 17))
        try:
            sharedmem.dumps(np.ones(1 << 17))
        except MemoryError as error:
            print("SHAREDMEM_IN_FLIGHT_LIMIT" in str(error), sharedmem.stats()["leases"])
        print(sharedmem.share(np.ones(1 << 17)).sum(), sharedmem.loads(kept).sum())
        """,
        SHAREDMEM_IN_FLIGHT_LIMIT="1MiB",
    ).splitlines() == ["True 1", "131072.0 131072.0"]


def test_nothing_is_imported_before_it_is_used(python):
    assert (
        python(
            """
        import sys
        import sharedmem
        assert "sharedmem.objects" not in sys.modules
        sharedmem.share
        print("sharedmem.objects" in sys.modules, "torch" in sys.modules)
        """
        )
        == "True False"
    )
