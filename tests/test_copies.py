"""array, copy, asshared: into shared memory from anywhere."""

import array as stdlib_array

import numpy as np
import pytest
from samples import DTYPES, VIEWS, name, sample
from support import address, same
from test_creation import check_like, error_of

import sharedmem

THINGS = {
    "number": 3,
    "float": 2.5,
    "list": [1, 2, 3],
    "nested": [[1, 2.5], [3, 4]],
    "strings": ["a", "bcd"],
    "bytes": [b"ab", b"c"],
    "bools": [True, False],
    "range": range(5),
    "array.array": stdlib_array.array("h", [1, 2, 3]),
    "memoryview": memoryview(b"abc"),
    "empty list": [],
    "list of arrays": [np.arange(3), np.arange(3)],
    "numpy scalar": np.float32(1.5),
    "dates": [np.datetime64("2020-01-01"), np.datetime64("2021-05-05")],
}


@pytest.mark.parametrize("thing", THINGS)
def test_array_of_things(thing):
    check_like(sharedmem.array(THINGS[thing]), np.array(THINGS[thing]))


@pytest.mark.parametrize("order", ["K", "C", "F", "A"])
@pytest.mark.parametrize("view", VIEWS)
def test_array_and_copy_keep_numpys_layout(view, order):
    a = VIEWS[view](sample((6, 12)))
    check_like(sharedmem.array(a, order=order), np.array(a, order=order))
    check_like(sharedmem.copy(a, order), np.copy(a, order))


@pytest.mark.parametrize("order", ["K", "C", "F"])
@pytest.mark.parametrize("view", VIEWS)
def test_copies_of_shared_arrays_keep_numpys_layout(view, order):
    a = VIEWS[view](sharedmem.asshared(sample((6, 12))))
    check_like(sharedmem.array(a, order=order), np.array(np.asarray(a), order=order))
    check_like(sharedmem.copy(a, order), np.copy(np.asarray(a), order))


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
def test_every_dtype(dtype):
    a = sample((3, 2), dtype)
    check_like(sharedmem.array(a), np.array(a))
    check_like(sharedmem.copy(a), a)
    check_like(sharedmem.asshared(a), a)


def test_array_converts():
    check_like(sharedmem.array([1, 2], "f4"), np.array([1, 2], "f4"))
    check_like(sharedmem.array([1.7, 2.2], dtype=int), np.array([1.7, 2.2], dtype=int))
    check_like(sharedmem.array([1, 2], ndmin=3), np.array([1, 2], ndmin=3))
    check_like(sharedmem.array(sample((2, 3)), ">i4", "F"), np.array(sample((2, 3)), ">i4", order="F"))


@pytest.mark.parametrize(
    ("args", "options"),
    [
        (([[1], [2, 3]],), {}),
        (("x", int), {}),
        (([1], "nope"), {}),
        (([1],), {"order": "Z"}),
        (([1],), {"ndmin": 99}),
    ],
    ids=str,
)
def test_array_raises_what_numpy_raises(args, options):
    expected = error_of(np.array, *args, **options)
    assert type(error_of(sharedmem.array, *args, **options)) is type(expected)


@pytest.mark.parametrize("make", [sharedmem.array, sharedmem.copy, sharedmem.asshared])
@pytest.mark.parametrize("value", [None, [None], [{}, 1], np.array([1, None])], ids=str)
def test_objects_are_refused(make, value):
    with pytest.raises(TypeError, match="object"):
        make(value)


@pytest.mark.parametrize("make", [sharedmem.array, sharedmem.copy])
def test_array_and_copy_always_copy(make):
    a = sharedmem.ones(5)
    b = make(a)
    assert sharedmem.is_shared(b)
    assert not np.shares_memory(a, b)
    b[:] = 2
    assert (a == 1).all()


def test_copy_of_a_read_only_array_is_writable():
    a = sharedmem.ones(3)
    a.flags.writeable = False
    sharedmem.copy(a)[0] = 2
    sharedmem.array(a)[0] = 2


def test_asshared_returns_a_shared_array_as_it_is():
    a = sharedmem.ones((3, 4))
    assert sharedmem.asshared(a) is a
    assert sharedmem.asshared(a, float) is a
    assert sharedmem.asshared(a, order="C") is a
    view = a[1:, ::2]
    assert sharedmem.asshared(view) is view


def test_asshared_of_a_plain_array_over_shared_memory_is_a_view():
    a = sharedmem.ones((3, 4))
    plain = np.asarray(a)[:, 1:]
    assert type(plain) is np.ndarray
    got = sharedmem.asshared(plain)
    assert type(got) is sharedmem.SharedArray
    assert (address(got), got.shape, got.strides) == (address(plain), plain.shape, plain.strides)
    got[0, 0] = 7
    assert a[0, 1] == 7


def test_asshared_keeps_read_only():
    a = sharedmem.ones(4)
    plain = np.asarray(a)
    plain.flags.writeable = False
    got = sharedmem.asshared(plain)
    assert not got.flags.writeable
    assert address(got) == address(a)


def test_asshared_keeps_the_memory_of_a_view_alive():
    got = sharedmem.asshared(np.asarray(sharedmem.full(1000, 5.0)))
    others = [sharedmem.zeros(1000) for _ in range(20)]
    assert (got == 5).all()
    del others


def test_asshared_copies_what_is_private():
    for a in (np.ones(4), [1.0, 1.0, 1.0, 1.0], sharedmem.ones(4).copy(), sharedmem.ones(4) + 0):
        got = sharedmem.asshared(a)
        assert type(got) is sharedmem.SharedArray
        assert sharedmem.is_shared(got)
        assert (got == 1).all()
        got[0] = 2
        assert a[0] == 1


def test_asshared_converts_only_where_it_must():
    a = sharedmem.asshared(sample((3, 4)))
    other = sharedmem.asshared(a, "f4")
    assert other.dtype == "f4"
    assert sharedmem.is_shared(other)
    assert not np.shares_memory(a, other)
    fortran = sharedmem.asshared(a, order="F")
    assert fortran.flags.f_contiguous
    assert sharedmem.is_shared(fortran)
    assert same(fortran, np.asarray(a))
    assert sharedmem.asshared(fortran, order="F") is fortran


@pytest.mark.parametrize("make", [sharedmem.array, sharedmem.asshared, sharedmem.copy])
@pytest.mark.parametrize(("given", "said"), [(None, "None"), ({"a": 1}, "dict"), ([1, None], "list")])
def test_what_numpy_would_only_store_as_objects_is_named_by_its_type(make, given, said):
    for call in (make, sharedmem.Latest().put):
        with pytest.raises(
            TypeError, match=rf"^NumPy turns (an object of type )?{said} into.*sharedmem\.share"
        ):
            call(given)
