"""Properties that hold for any dtype, shape, order and slicing, through one long-lived child."""

import pickle

import numpy as np
import pytest
import workers
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from support import Remote, address, roundtrip, same

import sharedmem

QUICK = settings(max_examples=150)
WITH_CHILD = settings(max_examples=100)

SIMPLE = (
    npst.boolean_dtypes()
    | npst.integer_dtypes(endianness="?")
    | npst.unsigned_integer_dtypes(endianness="?")
    | npst.floating_dtypes(endianness="?", sizes=(16, 32, 64))
    | npst.complex_number_dtypes(endianness="?")
    | npst.datetime64_dtypes()
    | npst.timedelta64_dtypes()
    | npst.byte_string_dtypes(min_len=1)
    | npst.unicode_string_dtypes(min_len=1)
    | st.just(np.dtype("g"))
    | st.just(np.dtype("V3"))
)

DTYPES = SIMPLE | npst.nested_dtypes(SIMPLE, max_itemsize=200).filter(
    lambda dtype: dtype.shape == () and dtype.itemsize > 0
)

SHAPES = npst.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5)

ORDERS = st.sampled_from("CF")


@st.composite
def shared_arrays(draw):
    """A shared array over known bytes that are valid in any dtype but text."""
    a = sharedmem.zeros(draw(SHAPES), draw(DTYPES), draw(ORDERS))
    if a.dtype.kind in "iufcMmSV" and a.dtype.names is None and a.size:
        a.view(np.ndarray).reshape(-1, order="A").view("u1")[:] = np.arange(a.nbytes) % 251
    return a


SHARED_ARRAYS = shared_arrays()


@st.composite
def views(draw, arrays=SHARED_ARRAYS):
    """Some view of a shared array: sliced, transposed, perhaps read-only."""
    a = draw(arrays)
    for _ in range(draw(st.integers(0, 2))):
        index = draw(npst.basic_indices(a.shape, allow_newaxis=True, max_dims=6))
        a = a[(*index, ...) if isinstance(index, tuple) and Ellipsis not in index else index]
        if not isinstance(a, np.ndarray):
            return sharedmem.ones(3)
    if a.ndim > 1 and draw(st.booleans()):
        a = a.transpose(draw(st.permutations(range(a.ndim))))
    if draw(st.booleans()):
        a = a[...]
        a.flags.writeable = False
    return a


@QUICK
@given(SHAPES, DTYPES, ORDERS)
def test_creation_is_numpys(shape, dtype, order):
    a, b = sharedmem.zeros(shape, dtype, order), np.zeros(shape, dtype, order)
    assert type(a) is sharedmem.SharedArray
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    assert a.size == 0 or a.strides == b.strides
    assert a.flags.c_contiguous == b.flags.c_contiguous
    assert a.flags.f_contiguous == b.flags.f_contiguous
    assert same(a, b)
    assert a.size == 0 or address(a) % 64 == 0


@QUICK
@given(views())
def test_a_roundtrip_is_the_same_memory(a):
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        b = roundtrip(a, protocol)
        assert b.shape == a.shape
        if a.size == 0:
            continue
        assert b.dtype == a.dtype
        assert (address(b), b.strides) == (address(a), a.strides)
        assert b.flags.writeable == a.flags.writeable
        assert type(b) is type(a)


@QUICK
@given(views())
def test_a_copy_is_the_same_data_in_other_memory(a):
    plain = np.asarray(a)
    for b in (sharedmem.copy(a), sharedmem.array(a), sharedmem.array(plain, order="F")):
        assert same(b, plain)
        assert b.flags.writeable
        assert a.size == 0 or not np.shares_memory(a, b)


@QUICK
@given(views())
def test_by_value_is_the_same_data_without_the_library(a):
    with sharedmem.pickle_by_value():
        data = pickle.dumps(a, 5)
    b = pickle.loads(data)
    assert type(b) is np.ndarray
    assert not sharedmem.is_shared(b)
    assert b.dtype.newbyteorder("=") == a.dtype.newbyteorder("=")  # NumPy's pickle keeps no more
    assert same(b.astype(a.dtype), np.asarray(a))


@pytest.fixture(scope="module", params=["fork", "spawn", "unrelated"])
def child(request):
    with Remote(request.param) as remote:
        yield remote


@WITH_CHILD
@given(a=views())
def test_a_child_sees_the_same(child, a):
    got = child.call(workers.describe, a)
    assert (got["shape"], got["data"]) == (a.shape, a.tobytes())
    if a.size:
        assert (got["strides"], got["dtype"]) == (a.strides, a.dtype)
        assert got["shared"]
        assert got["writeable"] == a.flags.writeable


@WITH_CHILD
@given(shape=SHAPES, order=ORDERS, data=st.data())
def test_a_child_writes_exactly_where_it_should(child, shape, order, data):
    a, expected = sharedmem.zeros(shape, "i4", order), np.zeros(shape, "i4", order)
    index = data.draw(npst.basic_indices(shape, allow_newaxis=True))
    index = index if isinstance(index, tuple) else (index,)
    if Ellipsis not in index:
        index = (*index, ...)
    expected[index] = 7
    child.call(workers.fill, a[index], 7)
    assert same(a, expected)


@WITH_CHILD
@given(a=views())
def test_what_a_child_returns_is_the_same_memory(child, a):
    b = child.call(workers.echo, a)
    assert b.shape == a.shape
    if a.size:
        assert (address(b), b.strides, b.dtype) == (address(a), a.strides, a.dtype)
        assert b.flags.writeable == a.flags.writeable


@settings(max_examples=40)
@given(sizes=st.lists(st.integers(0, 300_000), min_size=1, max_size=12))
def test_arrays_made_by_a_child(child, sizes):
    arrays = [child.call(workers.full, size, i, np.uint8) for i, size in enumerate(sizes)]
    assert [a.size for a in arrays] == sizes
    assert all((a == i).all() for i, a in enumerate(arrays))
