"""`share`, and a message of `dumps` that is loaded: what they give back, and what they copy."""

import collections
import copyreg
import dataclasses
import itertools
import pickle
import threading
import weakref

import numpy as np
import pytest
import samples
import workers
from object_ways import BOTH, live, sent
from support import Remote, address, in_fork, same

import sharedmem
from sharedmem import dumps, share

Pair = collections.namedtuple("Pair", "first second")


@dataclasses.dataclass
class Measured:
    name: str
    values: np.ndarray


@pytest.fixture(autouse=True)
def _no_message_is_left():
    """Each test counts leases from zero."""
    sharedmem.revoke(0)
    yield
    sharedmem.revoke(0)


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


@pytest.mark.parametrize("dtype", ["f8", "i4,f8", "M8[s]", "U3", object])
def test_a_message_with_a_masked_array_can_be_loaded_again(dtype):
    """Its fill value, an array itself, must not be in memory that the message keeps for one reader."""
    masked = np.ma.masked_array(np.zeros(3, dtype), [True, False, False])
    masked.fill_value = masked.fill_value
    kept = sharedmem.share([masked, np.ones(5)])
    message = sharedmem.dumps(kept)
    for _ in range(3):
        got = sharedmem.loads(message)[0]
        assert type(got) is type(masked)
        assert (got.tolist(), got.dtype) == (masked.tolist(), masked.dtype)
        assert repr(got.fill_value) == repr(masked.fill_value)  # NaT is not equal to itself


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
