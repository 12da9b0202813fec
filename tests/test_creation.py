"""empty, zeros, ones, full: NumPy's functions, in shared memory."""

import itertools
import random
import sys

import numpy as np
import pytest
from samples import DTYPES, SHAPES, fill, name
from support import address, same, settle

import sharedmem

MAKERS = ["empty", "zeros", "ones"]
BAD_SHAPES = [
    True,
    -1,
    (3, -1),
    (2**40, 2**40),
    2**63 - 1,
    2**64,
    (2**62, 4),
    2.5,
    (2, 3.0),
    "3",
    "ab",
    (1,) * 65,
    ((1, 2), 3),
]


def check_like(got, expected, values=True):
    """Equal in everything that a caller sees."""
    assert type(got) is sharedmem.SharedArray
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    assert got.dtype.metadata == expected.dtype.metadata
    assert got.flags.c_contiguous == expected.flags.c_contiguous
    assert got.flags.f_contiguous == expected.flags.f_contiguous
    assert got.flags.writeable
    assert got.flags.aligned
    if expected.size:
        assert got.strides == expected.strides
        if expected.nbytes:
            assert sharedmem.is_shared(got)
    if values:
        assert same(got, expected)


def error_of(function, *args, **options):
    with pytest.raises(Exception) as caught:
        function(*args, **options)
    return caught.value


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize("maker", MAKERS)
def test_equal_to_numpy_for_every_shape(maker, dtype, order):
    for shape in SHAPES:
        try:
            expected = getattr(np, maker)(shape, dtype, order)
        except Exception as error:
            with pytest.raises(type(error)):
                getattr(sharedmem, maker)(shape, dtype, order)
            continue
        got = getattr(sharedmem, maker)(shape, dtype, order)
        check_like(got, expected, values=maker != "empty")
        fill(got)
        assert same(got, fill(expected))


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(
    "shape", [5, 0, np.int64(4), [2, 3], (np.int32(2), 3), np.array([2, 2]), range(1, 4), ()]
)
def test_shapes_may_be_anything_numpy_takes(maker, shape):
    check_like(getattr(sharedmem, maker)(shape), getattr(np, maker)(shape), maker != "empty")


@pytest.mark.parametrize("maker", MAKERS)
def test_defaults_and_names_of_arguments(maker):
    make, numpys = getattr(sharedmem, maker), getattr(np, maker)
    for options in (
        {},
        {"dtype": None},
        {"dtype": "f4", "order": "F"},
        {"order": "f"},
        {"dtype": int},
        {"dtype": "S"},
        {"dtype": "U"},
        {"dtype": ("i4", (2,))},
        {"dtype": "i4,f8"},
        {"dtype": np.float32},
        {"dtype": np.dtype(">i2")},
    ):
        check_like(make(shape=(3, 2), **options), numpys(shape=(3, 2), **options), maker != "empty")


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("shape", BAD_SHAPES, ids=lambda shape: str(shape)[:20])
def test_bad_shapes_raise_what_numpy_raises(maker, shape):
    expected = error_of(getattr(np, maker), shape)
    got = error_of(getattr(sharedmem, maker), shape)
    if isinstance(expected, MemoryError):
        assert isinstance(got, MemoryError)
    elif sys.maxsize < 2**32 and isinstance(got, MemoryError):  # NumPy has the same words for all of them
        assert "does not fit the address space of 32 bit" in str(got)
        assert sys.maxsize < np.max(shape) < 2**63
    else:
        assert (type(got), str(got)) == (type(expected), str(expected))


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "nonsense"},
        {"dtype": 3},
        {"order": "Z"},
        {"order": 1},
        {"order": "K"},
        {"order": "A"},
        {"what": 1},
    ],
    ids=str,
)
def test_bad_options_raise_what_numpy_raises(maker, options):
    expected = error_of(getattr(np, maker), 3, **options)
    got = error_of(getattr(sharedmem, maker), 3, **options)
    assert type(got) is type(expected)


@pytest.mark.parametrize("maker", MAKERS)
def test_missing_shape_is_a_type_error(maker):
    with pytest.raises(TypeError):
        getattr(sharedmem, maker)()


OBJECTS = [
    (object, "object"),
    (np.dtype("O"), "object"),
    ([("x", "i4"), ("who", "O")], "who"),
    ([("x", "i4"), ("outer", [("y", "f8"), ("inner", "O")])], "inner"),
    ([("many", "O", (2, 2))], "many"),
    (("O", (3,)), "object"),
]


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(("dtype", "word"), OBJECTS, ids=str)
def test_objects_are_refused_with_the_name_of_the_field(maker, dtype, word):
    with pytest.raises(TypeError, match=word):
        getattr(sharedmem, maker)((2, 2), dtype)


@pytest.mark.skipif(not hasattr(np.dtypes, "StringDType"), reason="needs NumPy 2")
def test_string_dtype_is_refused():
    strings = np.dtypes.StringDType()
    for make in (sharedmem.empty, sharedmem.zeros):
        with pytest.raises(TypeError, match="StringDType"):
            make(3, strings)
    for make in (sharedmem.array, sharedmem.copy, sharedmem.asshared, sharedmem.empty_like):
        with pytest.raises(TypeError, match="StringDType"):
            make(np.array(["a", "b"], strings))


def test_refusal_names_an_alternative():
    with pytest.raises(TypeError) as caught:
        sharedmem.empty(3, object)
    message = str(caught.value).lower()
    assert any(word in message for word in ("fixed", "instead", "use ", "convert", "'s'", "'u'"))


@pytest.mark.parametrize(
    "value",
    [
        1,
        1.5,
        True,
        2j,
        "ab",
        b"xyz",
        np.float32(2),
        np.int8(-1),
        np.pi,
        np.datetime64("2020-01-01"),
        [1, 2],
        np.array([[1], [2]]),
        [[1.5, 2.5], [3.5, 4.5]],
    ],
    ids=str,
)
def test_full_takes_the_dtype_of_its_value(value):
    check_like(sharedmem.full((2, 2), value), np.full((2, 2), value))
    check_like(sharedmem.full((3, 2, 2), value, order="F"), np.full((3, 2, 2), value, order="F"))


@pytest.mark.filterwarnings("ignore:The .generic. unit:DeprecationWarning")  # NumPy 2.5
@pytest.mark.parametrize("dtype", [d for d in DTYPES if d.names is None and d.kind not in "VM"], ids=name)
def test_full_with_a_dtype(dtype):
    check_like(sharedmem.full((3, 2), 1, dtype), np.full((3, 2), 1, dtype))
    check_like(sharedmem.full(shape=(), fill_value=1, dtype=dtype), np.full((), 1, dtype))
    check_like(sharedmem.full((0, 2), 1, dtype), np.full((0, 2), 1, dtype))


@pytest.mark.parametrize("args", [((2, 3), [1, 2]), (3, "x", int), (3,), (-1, 0), (3, 1, "nope")], ids=str)
def test_full_raises_what_numpy_raises_and_keeps_nothing(args):
    expected = error_of(np.full, *args)
    settle()
    before = sharedmem.stats()["live_blocks"]
    got = error_of(sharedmem.full, *args)
    assert type(got) is type(expected)
    del got
    settle()
    assert sharedmem.stats()["live_blocks"] == before


@pytest.mark.parametrize("value", [None, {}, [None, 1]], ids=str)
def test_full_of_objects_is_refused(value):
    with pytest.raises(TypeError, match="object"):
        sharedmem.full(2, value)


@pytest.mark.parametrize("populate", [None, True, False])
@pytest.mark.parametrize("size", [1, 1000, 300_000, 3_000_000])
def test_populate_changes_no_result(populate, size):
    assert sharedmem.empty(size, populate=populate).shape == (size,)
    assert not sharedmem.zeros(size, populate=populate).any()
    assert (sharedmem.ones(size, populate=populate) == 1).all()
    assert (sharedmem.full(size, 7, populate=populate) == 7).all()


def test_populate_is_a_keyword_only_argument():
    with pytest.raises(TypeError):
        sharedmem.empty(3, float, "C", True)


@pytest.mark.parametrize(
    "nbytes", [1, 3, 63, 64, 65, 1000, 4096, 10_000, 100_000, 2**20, 2**21, 2**21 + 1, 5_000_000, 2**25]
)
def test_zeros_are_zero_in_memory_that_was_used_before(nbytes):
    for _ in range(3):
        dirty = [sharedmem.full(nbytes, 255, "u1") for _ in range(4)]
        del dirty
        clean = [sharedmem.zeros(nbytes, "u1") for _ in range(4)]
        assert not any(a.any() for a in clean)


def test_data_is_aligned_to_64_bytes_whatever_was_made_before():
    kept = []
    for nbytes in (1, 3, 8, 13, 64, 65, 100, 129, 1000, 4097, 70_000, 3_000_000):
        for dtype in ("u1", "f8", "c16", "g"):
            a = sharedmem.empty(max(nbytes // np.dtype(dtype).itemsize, 1), dtype)
            kept.append(a)
            assert address(a) % 64 == 0
            assert a.flags.aligned


def test_live_arrays_never_overlap():
    arrays = [sharedmem.full(i % 700 + 1, i, "i4") for i in range(2000)]
    del arrays[::3]
    arrays += [sharedmem.full(i % 900 + 1, -i, "i4") for i in range(2000)]
    spans = sorted((address(a), address(a) + a.nbytes) for a in arrays)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert all((a == a[0]).all() for a in arrays)


def test_the_users_random_stream_is_left_alone():
    np.random.seed(7)  # noqa: NPY002
    random.seed(7)
    expected = np.random.random(3).tolist(), random.random()  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    random.seed(7)
    sharedmem.ones(1000)
    sharedmem.zeros(10**6)
    assert (np.random.random(3).tolist(), random.random()) == expected  # noqa: NPY002


def test_nbytes_are_those_requested():
    for nbytes in (1, 4095, 4096, 4097, 80_000):
        a = sharedmem.zeros(nbytes, "u1")
        assert a.nbytes == nbytes == memoryview(a).nbytes
