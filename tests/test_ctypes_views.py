"""Arrays over ctypes objects, and ctypes objects over arrays."""

import ctypes
import multiprocessing
from multiprocessing import sharedctypes

import numpy as np
import pytest
import support
from samples import DTYPES, fill, name
from support import address, same

import sharedmem
from sharedmem._ctypes.dtypes import TYPECODES, dtype_of, type_of


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_double), ("y", ctypes.c_double)]


class Tagged(Point):
    _fields_ = [("tag", ctypes.c_wchar * 3), ("on", ctypes.c_bool), ("grid", (ctypes.c_short * 3) * 2)]


class Either(ctypes.Union):
    _fields_ = [("number", ctypes.c_uint64), ("bytes", ctypes.c_ubyte * 8)]


class Swapped(ctypes.BigEndianStructure):
    _fields_ = [("n", ctypes.c_int32), ("z", ctypes.c_double)]


class Packed(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("a", ctypes.c_char), ("b", ctypes.c_longdouble), ("point", Point)]


class Bits(ctypes.Structure):
    _fields_ = [("low", ctypes.c_int, 3), ("high", ctypes.c_int, 5)]


class Node(ctypes.Structure):
    _fields_ = [("value", ctypes.c_int), ("next", ctypes.POINTER(ctypes.c_int))]


NUMBERS = [
    ctypes.c_bool,
    ctypes.c_byte,
    ctypes.c_ubyte,
    ctypes.c_short,
    ctypes.c_ushort,
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.c_long,
    ctypes.c_ulong,
    ctypes.c_longlong,
    ctypes.c_ulonglong,
    ctypes.c_float,
    ctypes.c_double,
    ctypes.c_longdouble,
    ctypes.c_size_t,
    ctypes.c_int32.__ctype_be__,
    ctypes.c_double.__ctype_be__,
]
STRUCTURES = [Point, Tagged, Either, Swapped, Packed]
LIBRARIES = [multiprocessing, sharedmem]
#: Whether ctypes' wide characters are NumPy's. On Windows they have two bytes.
TEXT = ctypes.sizeof(ctypes.c_wchar) == np.dtype("U1").itemsize


@pytest.fixture(params=LIBRARIES, ids=lambda library: library.__name__)
def library(request):
    """multiprocessing and sharedmem, which must behave alike."""
    return request.param


# -- arrays over ctypes objects


@pytest.mark.parametrize("number", NUMBERS, ids=lambda t: f"{t.__name__}-{np.dtype(t).str}")
def test_every_number_is_seen_with_its_dtype(library, number):
    raw = library.RawArray(number, 5)
    a = sharedmem.shmem_as_ndarray(raw)
    assert (a.dtype, a.shape) == (np.dtype(number), (5,))
    a[:] = [0, 1, 0, 1, 1]
    assert list(raw) == [0, 1, 0, 1, 1]
    raw[0] = 1
    assert a[0] == 1
    if not np.dtype(number).isnative and library is sharedmem:
        with pytest.raises(TypeError, match="array of one"):
            library.RawValue(number, 1)
        return
    value = library.RawValue(number, 1)
    b = sharedmem.shmem_as_ndarray(value)
    assert (b.dtype, b.shape, b[()]) == (np.dtype(number), (), 1)
    b[...] = 0
    assert value.value == 0


@pytest.mark.parametrize("letter", TYPECODES)
def test_every_letter(library, letter):
    raw = library.RawArray(letter, 3)
    assert raw._type_ is TYPECODES[letter] is sharedctypes.typecode_to_type[letter]
    assert sharedmem.shmem_as_ndarray(raw).nbytes == ctypes.sizeof(raw)


def test_bytes_and_wide_characters(library):
    a = sharedmem.shmem_as_ndarray(library.RawArray("c", b"abc"))
    assert a.dtype == np.uint8
    assert a.tolist() == [97, 98, 99]
    last = "\N{GRINNING FACE}" if TEXT else "\N{EURO SIGN}"
    raw = library.RawArray("u", "h\N{LATIN SMALL LETTER E WITH ACUTE}" + last)
    b = sharedmem.shmem_as_ndarray(raw)
    assert b.dtype == ("U1" if TEXT else "u2")
    assert b.itemsize == ctypes.sizeof(ctypes.c_wchar)
    assert (b.tolist() if TEXT else [chr(unit) for unit in b]) == list(raw.value)
    b[0] = "H" if TEXT else ord("H")
    assert raw[0] == "H"


def test_wide_characters_of_two_bytes_are_numbers(monkeypatch):
    monkeypatch.setattr("sharedmem._ctypes.dtypes._WIDE", np.dtype("u2"))
    assert dtype_of(ctypes.c_wchar) == "u2"
    with pytest.raises(TypeError, match=r"U3 has no ctypes type; a\.view\('u4'\) has one"):
        type_of.__wrapped__(np.dtype("U3"))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_structures(library, structure):
    raw = library.RawArray(structure, 3)
    a = sharedmem.shmem_as_ndarray(raw)
    assert a.itemsize == ctypes.sizeof(structure)
    assert a.shape == (3,)
    for field in a.dtype.names:
        assert a.dtype.fields[field][1] == getattr(structure, field).offset
    if structure is not Tagged:
        assert a.dtype == np.dtype(structure)


def test_fields_of_a_structure_that_inherits(library):
    raw = library.RawValue(Tagged, 1.5, 2.5, "abc", True)
    a = sharedmem.shmem_as_ndarray(raw)
    assert a["x"] == 1.5
    assert a["tag"].tolist() == list("abc" if TEXT else b"abc")
    a["grid"][1, 2] = 7
    a["tag"] = list("xyz" if TEXT else b"xyz")
    assert raw.grid[1][2] == 7
    assert raw.tag == "xyz"


def test_nested_arrays(library):
    raw = library.RawArray((ctypes.c_int * 3) * 2, 4)
    a = sharedmem.shmem_as_ndarray(raw)
    assert a.shape == (4, 2, 3)
    a[3, 1, 2] = 5
    assert raw[3][1][2] == 5
    assert sharedmem.shmem_as_ndarray(raw, (6, -1)).shape == (6, 4)


def test_with_a_lock(library):
    locked = library.Array("d", 6)
    with locked.get_lock():
        a = sharedmem.shmem_as_ndarray(locked, (2, 3))
    a[1, 2] = 5
    assert locked[5] == 5
    value = library.Value(Point, 1, 2)
    assert sharedmem.shmem_as_ndarray(value)["y"] == 2


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (None, (12,)),
        (12, (12,)),
        (np.int64(12), (12,)),
        ((12,), (12,)),
        ([3, 4], (3, 4)),
        ((2, -1), (2, 6)),
        (-1, (12,)),
        (np.array([2, 2, 3]), (2, 2, 3)),
        ((1, 12, 1), (1, 12, 1)),
    ],
    ids=str,
)
def test_shapes(library, shape, expected):
    assert sharedmem.shmem_as_ndarray(library.RawArray("h", 12), shape).shape == expected


@pytest.mark.parametrize("shape", [11, (3, 5), (), (-1, -1), (-3, -4), (5, -1), (0, -1), 0, 2**70], ids=str)
def test_a_shape_that_does_not_fit_says_what_would(library, shape):
    with pytest.raises(ValueError, match=r"12 elements.*\(12,\)"):
        sharedmem.shmem_as_ndarray(library.RawArray("h", 12), shape)


@pytest.mark.parametrize("shape", ["12", 12.0, (3, 4.0), ((3, 4),), object()], ids=str)
def test_invalid_shapes(shape):
    with pytest.raises(TypeError, match="integer"):
        sharedmem.shmem_as_ndarray(sharedmem.RawArray("h", 12), shape)


@pytest.mark.parametrize(
    "wrong",
    [None, 3, [1, 2], b"bytes", np.zeros(3), ctypes.c_double, memoryview(b"abc"), multiprocessing.Lock()],
    ids=lambda w: type(w).__name__,
)
def test_arguments_that_are_not_ctypes_objects(wrong):
    with pytest.raises(TypeError, match="RawArray"):
        sharedmem.shmem_as_ndarray(wrong)


def test_elements_without_a_dtype():
    with pytest.raises(TypeError, match=r"Bits.low is a bit field"):
        sharedmem.shmem_as_ndarray(multiprocessing.RawArray(Bits, 2))
    with pytest.raises(TypeError, match="pointer"):
        sharedmem.shmem_as_ndarray(multiprocessing.RawArray(Node, 2))
    with pytest.raises(TypeError, match="c_char_p"):
        sharedmem.shmem_as_ndarray(multiprocessing.RawArray(ctypes.c_char_p, 2))
    with pytest.raises(TypeError, match="py_object"):
        sharedmem.shmem_as_ndarray((ctypes.py_object * 2)())


def test_the_array_keeps_the_memory(library):
    a = sharedmem.shmem_as_ndarray(library.Array("q", range(100_000)))[10:].reshape(2, -1)
    support.settle()
    assert a.sum() == sum(range(10, 100_000))
    b = sharedmem.shmem_as_ndarray(library.Value("d", 4))
    support.settle()
    assert b == 4


def test_no_elements(library):
    a = sharedmem.shmem_as_ndarray(library.RawArray("d", 0))
    assert (a.shape, a.dtype) == ((0,), float)
    assert sharedmem.shmem_as_ndarray(library.RawArray("d", 0), (3, 0)).shape == (3, 0)


def test_arrays_over_our_memory_are_shared():
    a = sharedmem.shmem_as_ndarray(sharedmem.Array("i", range(6)), (2, 3))
    assert type(a) is sharedmem.SharedArray
    b = support.roundtrip(a)
    b[0, 0] = 9
    assert a[0, 0] == 9


# -- ctypes objects over arrays


def converts(dtype):
    try:
        return type_of(dtype)
    except TypeError:
        return None


@pytest.mark.parametrize("dtype", [d for d in DTYPES if converts(d)], ids=name)
def test_as_ctypes_and_back(dtype):
    a = fill(sharedmem.zeros((2, 3), dtype))
    c = sharedmem.as_ctypes(a)
    assert ctypes.sizeof(c) == a.nbytes
    assert (len(c), len(c[0])) == (2, 3)
    back = sharedmem.shmem_as_ndarray(c)
    sent = sharedmem.shmem_as_ndarray(support.roundtrip(c))
    for b in (back, sent):
        assert (b.dtype, b.shape) == (a.dtype, a.shape)
        assert same(b, a)
        assert address(b) == address(a) or a.nbytes == 0


@pytest.mark.parametrize("letter", "?bBhHiIlLqQfdg")
def test_every_number_of_numpy_has_a_ctypes_type(letter):
    """Two letters may have one type: those of long and long long on Linux, of int and long on Windows."""
    type_of.cache_clear()  # equal dtypes have one entry, whichever letter was asked for first
    a = fill(sharedmem.zeros(3, letter))
    c = sharedmem.as_ctypes(a)
    assert same(sharedmem.shmem_as_ndarray(c), a)
    assert c[:] == a.tolist()


def test_as_ctypes_shares_numbers_text_and_fields():
    a = sharedmem.zeros((2, 3), ">i4")
    c = sharedmem.as_ctypes(a)
    c[1][2] = 258
    assert a[1, 2] == 258
    s = sharedmem.as_ctypes(sharedmem.array([b"ab", b"cde"]))
    assert s[1].value == b"cde"
    text = sharedmem.array(["ab", "cde"])
    if TEXT:
        assert sharedmem.as_ctypes(text)[0].value == "ab"
    else:
        assert list(sharedmem.as_ctypes(text.view("u4"))) == [97, 98, 0, 99, 100, 101]
    r = sharedmem.zeros(2, {"names": ["n", "x"], "formats": ["i2", ">f8"], "offsets": [3, 9], "itemsize": 21})
    sharedmem.as_ctypes(r)[1].x = 2.5
    assert r["x"].tolist() == [0, 2.5]
    zero_d = sharedmem.array(3.5)
    sharedmem.as_ctypes(zero_d).value = 4
    assert zero_d == 4
    assert len(sharedmem.as_ctypes(sharedmem.zeros((0, 3)))) == 0


def test_as_ctypes_of_views_and_plain_arrays_in_shared_memory():
    a = sharedmem.zeros((4, 3))
    sharedmem.as_ctypes(a[1:3])[0][0] = 1
    sharedmem.as_ctypes(np.asarray(a)[3:])[0][2] = 2
    assert (a[1, 0], a[3, 2]) == (1, 2)


def read_only(a):
    a.flags.writeable = False
    return a


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (sharedmem.zeros((3, 4)).T, ValueError, "C-contiguous"),
        (sharedmem.zeros(6)[::2], ValueError, "C-contiguous"),
        (read_only(sharedmem.zeros(6)), ValueError, "read-only"),
        (np.zeros(6), ValueError, "asshared"),
        (sharedmem.zeros(3).copy(), ValueError, "asshared"),
        (sharedmem.zeros(3, complex), TypeError, "a.real.dtype"),
        (sharedmem.zeros(3, "M8[s]"), TypeError, "view"),
        (sharedmem.zeros(3, "f2"), TypeError, "view"),
        (
            sharedmem.zeros(3, {"names": "ab", "formats": ["i4", "i2"], "offsets": [0, 2]}),
            TypeError,
            "overlaps",
        ),
        ([1, 2, 3], TypeError, "list"),
    ],
    ids=repr,
)
def test_what_as_ctypes_refuses(array, error, message):
    with pytest.raises(error, match=message):
        sharedmem.as_ctypes(array)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_dtype_and_type_are_inverse(structure):
    dtype = dtype_of(structure)
    if structure is not Either:
        assert dtype_of(type_of(dtype)).itemsize == dtype.itemsize == ctypes.sizeof(structure)
