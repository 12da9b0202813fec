"""`share`, `dumps` and `loads`: what they give back, what they copy, and what keeps the memory."""

import collections
import copyreg
import dataclasses
import gc
import itertools
import pickle
import socket
import sys
import threading
import weakref

import numpy as np
import pytest
import samples
import workers
from support import Remote, address, check_memory_message, in_fork, needs_64_bit, private_memory, same, settle

import sharedmem
from sharedmem import StaleHandleError, dumps, loads, share

Pair = collections.namedtuple("Pair", "first second")


@dataclasses.dataclass
class Measured:
    name: str
    values: np.ndarray


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


def sent(obj):
    return loads(dumps(obj))


def leases():
    return sharedmem.stats()["leases"]


def live(what):
    """The number of "blocks" or "bytes" in use, when garbage has been collected."""
    settle()
    return sharedmem.stats()[f"live_{what}"]


BOTH = pytest.mark.parametrize("way", [share, sent])


# -- what comes out


@BOTH
@pytest.mark.parametrize("dtype", samples.DTYPES, ids=samples.name)
@pytest.mark.parametrize("order", "CF")
def test_arrays_of_every_dtype(way, dtype, order):
    a = samples.sample((3, 4), dtype, order)
    got = way(a)
    assert type(got) is np.ndarray
    assert same(got, a)
    assert got.strides == a.strides or dtype.itemsize == 0
    assert got.flags.writeable
    assert got.flags.aligned
    assert sharedmem.is_shared(got) == (dtype.itemsize > 0)
    assert not np.shares_memory(got, a)


@BOTH
@pytest.mark.parametrize("shape", samples.SHAPES, ids=samples.name)
def test_arrays_of_every_shape(way, shape):
    a = samples.sample(shape)
    got = way(a)
    assert type(got) is np.ndarray
    assert same(got, a)
    assert sharedmem.is_shared(got) == (a.size > 0)


@BOTH
@pytest.mark.parametrize("view", samples.VIEWS)
def test_views_of_private_arrays_are_copied_without_gaps(way, view):
    a = samples.VIEWS[view](samples.sample((6, 8)))
    got = way(a)
    assert type(got) is np.ndarray
    assert same(got, a)
    assert got.flags.forc
    assert got.flags.writeable


@BOTH
@pytest.mark.parametrize("view", set(samples.VIEWS) - {"empty slice"})
def test_views_of_shared_memory_are_not_copied(way, view):
    a = samples.VIEWS[view](np.asarray(sharedmem.array(samples.sample((6, 8)))))
    got = way(a)
    assert type(got) is np.ndarray
    assert (address(got), got.shape, got.dtype) == (address(a), a.shape, a.dtype)
    assert all(n == 1 or x == y for n, x, y in zip(a.shape, got.strides, a.strides, strict=True))
    assert got.flags.writeable == a.flags.writeable


@BOTH
def test_what_is_shared_and_read_only_stays_so(way):
    a = np.asarray(sharedmem.ones(10))
    a.flags.writeable = False
    got = way([a, np.asarray(sharedmem.ones(10))])
    assert np.shares_memory(got[0], a)
    assert [each.flags.writeable for each in got] == [False, True]
    with pytest.raises(ValueError, match="WRITEABLE"):
        got[0].flags.writeable = True


@BOTH
def test_a_read_only_private_array_arrives_writable(way):
    a = np.ones(10)
    a.flags.writeable = False
    got = way(a)
    got[0] = 2
    assert a[0] == 1


@BOTH
def test_objects_keep_their_types_and_identities(way):
    a = np.arange(5.0)
    obj = {
        "pair": Pair(a, [a, a]),
        "data": Measured("x", np.ones(3, "i2")),
        "rest": ("text", b"bytes", bytearray(b"more"), 1, 2.5, None, np.float32(3), {1, 2}),
    }
    obj["itself"] = obj
    got = way(obj)
    assert type(got["pair"]) is Pair
    assert got["pair"].first is got["pair"].second[0] is got["pair"].second[1]
    assert same(got["pair"].first, a)
    assert got["data"].name == "x"
    assert sharedmem.is_shared(got["data"].values)
    assert got["rest"] == obj["rest"]
    assert got["itself"] is got


@BOTH
@pytest.mark.parametrize("value", [None, 5, "text", b"bytes", [1, (2, {3: 4})], np.int16(7)], ids=repr)
def test_objects_without_arrays(way, value):
    before = live("blocks")
    got = way(value)
    assert type(got) is type(value)
    assert got == value
    assert live("blocks") == before


@BOTH
def test_arrays_of_objects_and_subclasses_are_copied_by_pickling(way):
    of_objects = np.array([1, "two", None], object)
    masked = np.ma.masked_equal([1, 2, 3], 2)
    records = np.rec.array([(1, 2.0)], dtype="i4,f8")
    got = way([of_objects, masked, records, np.float64(4)])
    assert got[0].tolist() == [1, "two", None]
    assert got[1].tolist() == [1, None, 3]
    assert [type(each) for each in got[:3]] == [np.ndarray, type(masked), np.recarray]
    assert not any(sharedmem.is_shared(each) for each in got[:3])


@BOTH
@pytest.mark.skipif(not hasattr(np, "dtypes") or not hasattr(np.dtypes, "StringDType"), reason="NumPy 1")
def test_arrays_of_text_of_any_length_are_copied_by_pickling(way):
    a = np.array(["one", "a longer text than fits into sixteen bytes"], np.dtypes.StringDType())
    got = way(a)
    assert (got == a).all()
    assert got.dtype == a.dtype
    assert not sharedmem.is_shared(got)


class Named(sharedmem.SharedArray):
    """A subclass."""


@BOTH
def test_shared_arrays_stay_what_they_are(way):
    a = sharedmem.ones(10)
    got = way([a, a[::-2], a.view(Named)])
    assert [type(each) for each in got] == [sharedmem.SharedArray, sharedmem.SharedArray, Named]
    assert all(np.shares_memory(each, a) for each in got)


@BOTH
def test_shared_arrays_over_private_memory_become_plain(way):
    got = way(sharedmem.ones(10).copy())
    assert type(got) is np.ndarray
    assert sharedmem.is_shared(got)


@BOTH
def test_what_was_registered_for_arrays_is_used(way, monkeypatch):
    monkeypatch.setitem(copyreg.dispatch_table, np.ndarray, lambda a: (len, ("four",)))
    assert way(np.ones(10)) == 4


@BOTH
def test_any_buffer_that_pickle_leaves_out(way):
    got = way(
        [pickle.PickleBuffer(bytearray(b"abc")), pickle.PickleBuffer(b"defg"), pickle.PickleBuffer(b"")]
    )
    assert [bytes(each) for each in got] == [b"abc", b"defg", b""]
    assert [memoryview(each).readonly for each in got[:2]] == [False, True]
    assert sharedmem.is_shared(np.frombuffer(got[1], "u1"))


# -- what is copied, and where it lies


def test_all_data_lies_in_one_block():
    before = live("blocks")
    got = share([np.ones(n) for n in range(1, 50)] + [np.ones((20, 20))[::3, ::3]])
    assert live("blocks") == before + 1
    assert all(address(each) % 64 == 0 for each in got)
    ends = sorted((address(each), address(each) + each.nbytes) for each in got)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ends))


def test_what_is_shared_is_not_copied_again():
    first = share({"a": np.ones(1000), "b": np.zeros((30, 40), order="F")[::2]})
    first["c"] = np.asarray(sharedmem.ones(10))
    before = live("blocks")
    for way in (share, sent):
        again = way(first)
        assert all(np.shares_memory(again[key], first[key]) for key in first)
        assert live("blocks") == before
    assert len(dumps(first)) < 1000


def test_only_data_lies_in_shared_memory():
    """Neither the pickle nor text: nothing that objects are made from."""
    got = share(
        {"a name like no other": np.full(4, 7, "u1"), "b": "some other text", "c": Measured("x", np.ones(1))}
    )
    block = got["a name like no other"].base
    while type(block.base) is not type(None):
        block = block.base
    content = bytes(block)
    assert content.startswith(b"\7\7\7\7")
    for text in (b"no other", b"other text", b"Measured", b"numpy", b"restore"):
        assert text not in content


def test_a_message_is_short():
    assert len(dumps(np.ones(1_000_000))) < 300
    assert len(dumps({name: np.ones(100_000) for name in "abcd"})) < 500


def test_the_object_that_was_shared_is_not_kept():
    a = np.ones(1000)
    gone = weakref.ref(a)
    got = share([a, a[::2]])
    del a
    assert gone() is None
    assert got[1].sum() == 500


def test_an_element_keeps_the_whole_block():
    before = live("bytes")
    got = share([np.ones(1000), np.ones(100_000)])
    small = got[0]
    del got
    assert live("bytes") >= before + 800_000
    assert small.sum() == 1000
    del small
    assert live("bytes") < before + 800_000


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


@pytest.mark.parametrize("kind", ["fork", "spawn", "unrelated"])
def test_another_process_sees_what_is_written(kind):
    got = share({"a": np.zeros(1000), "b": [np.zeros((20, 30))[::2]]})
    with Remote(kind) as other:
        for a in (got["a"], got["b"][0]):
            other.call(workers.hold_handle, "sent", dumps(a))
            other.call(workers.store_held, "sent", 3, 7)
            assert np.all(a[3] == 7)
            a[4] = 8
            assert other.call(workers.total_held, "sent") == a.sum()
            other.call(workers.drop, "sent")


def test_arrays_of_a_parent_are_shared_with_its_forked_child():
    got = share([np.zeros(1000)])

    def write():
        got[0][:] = 5
        assert sent(got)[0][0] == 5

    assert in_fork(write) == 0
    assert got[0].sum() == 5000


def test_many_threads_at_once():
    shared = share([np.arange(1000)])
    wrong = []

    def work(number):
        for i in range(100):
            a = np.full(100 + i, number)
            if not (share([a])[0] == number).all() or not (sent({"a": a})["a"] == number).all():
                wrong.append(number)
            if sent(shared)[0].sum() != 499500:
                wrong.append("shared")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert wrong == []


# -- how long a message is kept


def test_a_message_is_kept_until_it_is_loaded_once():
    before = leases()
    message = dumps([np.ones(100_000), np.ones(5)])
    assert leases() == before + 1
    sharedmem.collect(leases=True)
    got = loads(message)
    assert leases() == before
    assert got[0].sum() == 100_000
    again = loads(message)  # somebody has the arrays
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
        again = share(s)  # not a pickle that anybody keeps
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
    other = Remote("fork")
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


# -- what does not work


@BOTH
@pytest.mark.parametrize("obj", [lambda: 0, threading.Lock(), sys, [np.ones(3), (x for x in "")]], ids=repr)
def test_what_cannot_be_pickled_raises_what_pickling_raises(way, obj):
    with pytest.raises(Exception) as expected:
        pickle.dumps(obj, 5)
    with pytest.raises(expected.type, match=r"pickle|lambda"):
        way(obj)


@pytest.mark.parametrize("data", [None, 5, "text", [b"bytes"], dumps], ids=repr)
def test_loads_wants_bytes(data):
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
