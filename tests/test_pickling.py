"""pickle.dumps(a) is a small handle; loading it gives the same memory."""

import copyreg
import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
from samples import DTYPES, PLAIN, STRUCTURED, VIEWS, name, sample
from support import address, check_python, roundtrip, same, settle

import sharedmem
from sharedmem import is_shared

PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)


def check_same_memory(got, a):
    """Another array object with the same shape, strides and dtype, over the same bytes."""
    assert type(got) is type(a)
    assert got is not a
    assert (address(got), got.shape, got.strides) == (address(a), a.shape, a.strides)
    assert got.dtype == a.dtype
    assert got.dtype.fields == a.dtype.fields
    assert got.dtype.isalignedstruct == a.dtype.isalignedstruct
    assert got.flags.writeable == a.flags.writeable
    assert same(got, a)


@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", [d for d in PLAIN if d.kind != "V"], ids=name)
def test_at_most_150_bytes_for_plain_dtypes(dtype, protocol):
    for shape in [(), (3,), (1000,), (3000, 1000)]:
        a = sharedmem.empty(shape, dtype)
        for view in (a, a[::-1] if a.ndim else a, a.T, a[..., None][..., 0], a[1:] if a.ndim else a):
            assert len(pickle.dumps(view, protocol)) <= 150


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", STRUCTURED[:-1], ids=name)
def test_under_500_bytes_otherwise(dtype, protocol):
    for shape in [(), (3,), (40, 50, 60), (1,) * 5]:
        assert len(pickle.dumps(sharedmem.empty(shape, dtype), protocol)) < 500
    assert len(pickle.dumps(sharedmem.empty((2,) * 8), 2)) < 500


def test_size_does_not_depend_on_the_data():
    small, large = sharedmem.ones(1), sharedmem.empty(2**24)
    assert abs(len(pickle.dumps(small)) - len(pickle.dumps(large))) < 20


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", [d for d in DTYPES if d.itemsize], ids=name)
def test_every_dtype(dtype, protocol):
    for shape in [(), (5,), (2, 3)]:
        a = sharedmem.asshared(sample(shape, dtype))
        check_same_memory(roundtrip(a, protocol), a)


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d.itemsize], ids=name)
def test_dtype_survives_exactly(dtype):
    got = roundtrip(sharedmem.empty(2, dtype)).dtype
    assert got == dtype
    assert (got.byteorder, got.itemsize, got.alignment) == (dtype.byteorder, dtype.itemsize, dtype.alignment)
    assert got.names == dtype.names
    assert repr(got) == repr(dtype)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("view", [v for v in VIEWS if v != "empty slice"])
def test_every_view(view, order, protocol):
    if view in ("bytes", "reshaped"):
        order = "C"  # of a Fortran array NumPy refuses the one and makes the other a copy
    whole = sharedmem.array(sample((6, 12)), order=order)
    a = VIEWS[view](whole)
    got = roundtrip(a, protocol)
    check_same_memory(got, a)
    if got.flags.writeable:
        got[...] = 77
        assert (a == 77).all()


def test_odd_offsets_and_strides():
    raw = sharedmem.zeros(1000, "u1")
    view = raw[3 : 3 + 8 * 20].view("f8")
    for a in (view, view[::-1], view[5::3], raw[1:-1:7][::-2], view.reshape(4, 5)[:, ::-1].T):
        check_same_memory(roundtrip(a), a)
    zero = np.lib.stride_tricks.as_strided(raw, (5, 4), (0, 0), subok=True)
    check_same_memory(roundtrip(zero), zero)
    overlapping = np.lib.stride_tricks.as_strided(raw, (50, 10), (3, 1), subok=True)
    check_same_memory(roundtrip(overlapping), overlapping)
    fields = sharedmem.zeros((3, 4), [("x", "u1"), ("y", "f8"), ("z", "i2", (2,))])
    for a in (fields["y"], fields["z"][::-1, :, 1], fields[["x", "z"]]):
        check_same_memory(roundtrip(a), a)


def test_plain_views_keep_the_memory_when_they_are_made_shared_again():
    a = sharedmem.ones((4, 4))
    got = roundtrip(sharedmem.asshared(np.asarray(a)[1:]))
    got[:] = 5
    assert a.sum() == 4 + 12 * 5


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_read_only_stays_read_only(protocol):
    a = sharedmem.ones(4)
    view = a[1:]
    view.flags.writeable = False
    assert not roundtrip(view, protocol).flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        roundtrip(view, protocol)[0] = 1
    assert roundtrip(a, protocol).flags.writeable
    roundtrip(a, protocol)[0] = 8
    assert a[0] == 8


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("shape", [(0,), (5, 0), (1, 0, 3)], ids=str)
def test_size_zero(shape, protocol):
    for a in (sharedmem.empty(shape, "i2"), sharedmem.empty(shape, "f8", "F"), sharedmem.ones(8)[8:]):
        got = roundtrip(a, protocol)
        assert (got.shape, got.dtype) == (a.shape, a.dtype)
        assert len(pickle.dumps(a, protocol)) < 500


def test_writes_are_seen_both_ways():
    a = sharedmem.zeros((3, 4))
    b = roundtrip(a)
    b[1, 2] = 5
    assert a[1, 2] == 5
    a += 1
    assert b[1, 2] == 6


def test_one_handle_loaded_twice_is_one_mapping():
    a = sharedmem.ones(1000)
    data = pickle.dumps(a)
    maps = count_maps()
    loaded = [pickle.loads(data) for _ in range(200)]
    assert {address(b) for b in loaded} == {address(a)}
    assert count_maps() <= maps + 5
    assert not np.shares_memory(a, sharedmem.ones(1000))


def count_maps():
    with open("/proc/self/maps") as file:
        return sum(1 for _ in file)


def test_a_loaded_array_keeps_the_memory():
    a = sharedmem.full(5000, 3.0)
    b = roundtrip(a)
    del a
    others = [sharedmem.zeros(5000) for _ in range(10)]
    assert (b == 3).all()
    data = pickle.dumps(b)
    c = pickle.loads(data)
    del b, others
    settle()
    assert (c == 3).all()


def test_inside_other_objects():
    a = sharedmem.ones(4)
    b = a[1:]
    plain = np.arange(3)
    got = roundtrip({"a": [a, a], "b": (b, plain), "n": 3})
    assert got["a"][0] is got["a"][1]
    assert address(got["b"][0]) == address(b)
    assert type(got["b"][1]) is np.ndarray
    assert got["b"][1].tolist() == [0, 1, 2]


def test_pickling_does_not_look_at_the_data():
    a = sharedmem.zeros(2**16, "u1")
    data = pickle.dumps(a)
    a[:] = 9
    assert (pickle.loads(data) == 9).all()


def test_protocol_5_buffers_stay_in_the_handle():
    a = sharedmem.ones(100_000)
    buffers = []
    data = pickle.dumps(a, 5, buffer_callback=buffers.append)
    assert buffers == []
    assert address(pickle.loads(data)) == address(a)


def test_python_pickler_and_cloudpickle_agree():
    a = sharedmem.ones((30, 40))[::2]
    check_same_memory(pickle.loads(pickle._dumps(a, 4)), a)
    check_same_memory(pickle._loads(pickle.dumps(a, 4)), a)
    cloudpickle = pytest.importorskip("cloudpickle")
    check_same_memory(pickle.loads(cloudpickle.dumps(a)), a)


def test_multiprocessings_pickler():
    a = sharedmem.ones((30, 40))[::2]
    for protocol in (None, *PROTOCOLS):
        data = ForkingPickler.dumps(a, protocol)
        assert len(data) <= 500
        check_same_memory(ForkingPickler.loads(data), a)


def test_python_subclass_arrives_as_a_shared_array():
    a = sharedmem.ones(4).view(Named)
    got = roundtrip(a)
    assert isinstance(got, sharedmem.SharedArray)
    assert address(got) == address(a)


class Named(sharedmem.SharedArray):
    pass


def test_by_value_switch():
    a = sharedmem.ones((30, 40))[:, ::2]
    with sharedmem.pickle_by_value():
        data = pickle.dumps(a)
        nested = pickle.dumps([a, {"b": a}])
    assert len(data) > a.nbytes
    got = pickle.loads(data)
    assert type(got) is np.ndarray
    assert not is_shared(got)
    assert same(got, np.asarray(a))
    assert not is_shared(pickle.loads(nested)[1]["b"])
    assert len(pickle.dumps(a)) <= 150


def test_by_value_ends_with_its_block_and_nests():
    a = sharedmem.ones(1000)
    with sharedmem.pickle_by_value():
        with sharedmem.pickle_by_value():
            assert len(pickle.dumps(a)) > 8000
        assert len(pickle.dumps(a)) > 8000
    assert len(pickle.dumps(a)) <= 150
    with pytest.raises(KeyError), sharedmem.pickle_by_value():
        raise KeyError
    assert len(pickle.dumps(a)) <= 150


def test_by_value_is_a_matter_of_the_context_only():
    import contextvars
    import threading

    a = sharedmem.ones(1000)
    sizes = []
    with sharedmem.pickle_by_value():
        thread = threading.Thread(
            target=contextvars.Context().run, args=(lambda: sizes.append(len(pickle.dumps(a))),)
        )
        thread.start()
        thread.join()
        sizes.append(len(pickle.dumps(a)))
    assert sizes[0] <= 150
    assert sizes[1] > 8000


def test_by_value_data_outlives_every_process():
    code = """
    import pickle, sys, sharedmem
    with sharedmem.pickle_by_value():
        sys.stdout.write(pickle.dumps(sharedmem.full(100, 4.0)).hex())
    """
    got = pickle.loads(bytes.fromhex(check_python(code)))
    assert (got == 4).all()


ORDINARY = """
import copyreg, hashlib, io, pickle
import numpy as np
from multiprocessing.reduction import ForkingPickler
things = [np.arange(10), np.ones((3, 4), order="F"), np.zeros(5)[::2], np.array(3), np.array([]),
          np.zeros(3, [("x", "f8"), ("n", "i4")]), np.array(["a", None], object), np.float32(1),
          np.ma.masked_array([1, 2], [0, 1]), np.array(["x"]), np.ones(3).view(np.recarray),
          [np.arange(3), {"a": np.eye(2)}], np.dtype("f8"), np.arange(3).astype("M8[s]")]
def every():
    out = []
    for thing in things:
        for protocol in range(0, 6):
            out.append(pickle.dumps(thing, protocol))
            out.append(bytes(ForkingPickler.dumps(thing, protocol)))
        out.append(bytes(ForkingPickler.dumps(thing)))
        buffers = []
        out.append(pickle.dumps(thing, 5, buffer_callback=buffers.append))
        out.extend(buffer.raw().tobytes() for buffer in buffers)
    return out
before, table = every(), dict(copyreg.dispatch_table)
import sharedmem
kept = sharedmem.ones(3)
print(every() == before, copyreg.dispatch_table == table)
"""


def test_ordinary_arrays_pickle_byte_for_byte_as_without_the_library():
    assert check_python(ORDINARY) == "True True"


def test_no_global_table_of_pickle_is_touched():
    assert np.ndarray not in copyreg.dispatch_table
    assert sharedmem.SharedArray not in copyreg.dispatch_table
    assert np.ndarray not in ForkingPickler._extra_reducers
