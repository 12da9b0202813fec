"""ctypes objects in shared memory, and arrays over them."""

import copy
import ctypes
import multiprocessing
import pickle
from multiprocessing import sharedctypes

import numpy as np
import pytest
import support
from samples import DTYPES, fill, name
from support import address, same

import sharedmem
from sharedmem.ctypes_types import TYPECODES, dtype_of, type_of


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


class Counter(ctypes.Structure):
    """With a constructor and a method of its own."""

    _fields_ = [("n", ctypes.c_int)]

    def __init__(self, start=10):
        super().__init__(start)

    def bump(self):
        self.n += 1


NUMBERS = [
    ctypes.c_bool, ctypes.c_byte, ctypes.c_ubyte, ctypes.c_short, ctypes.c_ushort, ctypes.c_int, ctypes.c_uint,
    ctypes.c_long, ctypes.c_ulong, ctypes.c_longlong, ctypes.c_ulonglong, ctypes.c_float, ctypes.c_double,
    ctypes.c_longdouble, ctypes.c_size_t, ctypes.c_int32.__ctype_be__, ctypes.c_double.__ctype_be__,
]
STRUCTURES = [Point, Tagged, Either, Swapped, Packed, Counter]
LIBRARIES = [multiprocessing, sharedmem]


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
    raw = library.RawArray("u", "h\N{LATIN SMALL LETTER E WITH ACUTE}\N{GRINNING FACE}")
    b = sharedmem.shmem_as_ndarray(raw)
    assert b.dtype == "U1"
    assert b.itemsize == ctypes.sizeof(ctypes.c_wchar)
    assert "".join(b) == raw.value
    b[0] = "H"
    assert raw[0] == "H"


@pytest.mark.parametrize("structure", STRUCTURES)
def test_structures(library, structure):
    raw = library.RawArray(structure, 3)
    a = sharedmem.shmem_as_ndarray(raw)
    assert a.itemsize == ctypes.sizeof(structure)
    assert a.shape == (3,)
    for field in a.dtype.names:
        assert a.dtype.fields[field][1] == getattr(structure, field).offset
    if structure not in (Tagged, Counter):
        assert a.dtype == np.dtype(structure)


def test_fields_of_a_structure_that_inherits(library):
    raw = library.RawValue(Tagged, 1.5, 2.5, "abc", True)
    a = sharedmem.shmem_as_ndarray(raw)
    assert a["x"] == 1.5
    assert "".join(a["tag"]) == "abc"
    a["grid"][1, 2] = 7
    a["tag"] = list("xyz")
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


@pytest.mark.parametrize(("shape", "expected"), [
    (None, (12,)), (12, (12,)), (np.int64(12), (12,)), ((12,), (12,)), ([3, 4], (3, 4)), ((2, -1), (2, 6)),
    (-1, (12,)), (np.array([2, 2, 3]), (2, 2, 3)), ((1, 12, 1), (1, 12, 1))], ids=str)
def test_shapes(library, shape, expected):
    assert sharedmem.shmem_as_ndarray(library.RawArray("h", 12), shape).shape == expected


@pytest.mark.parametrize("shape", [11, (3, 5), (), (-1, -1), (-3, -4), (5, -1), (0, -1), 0, 2**70], ids=str)
def test_a_shape_that_does_not_fit_says_what_would(library, shape):
    with pytest.raises(ValueError, match=r"12 elements.*\(12,\)"):
        sharedmem.shmem_as_ndarray(library.RawArray("h", 12), shape)


@pytest.mark.parametrize("shape", ["12", 12.0, (3, 4.0), ((3, 4),), object()], ids=str)
def test_a_shape_that_is_none(shape):
    with pytest.raises(TypeError, match="integer"):
        sharedmem.shmem_as_ndarray(sharedmem.RawArray("h", 12), shape)


@pytest.mark.parametrize("wrong", [None, 3, [1, 2], b"bytes", np.zeros(3), ctypes.c_double, memoryview(b"abc"),
                                   multiprocessing.Lock()], ids=lambda w: type(w).__name__)
def test_what_is_no_ctypes_object(wrong):
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
    a = sharedmem.shmem_as_ndarray(library.Array("l", range(100_000)))[10:].reshape(2, -1)
    support.settle()
    assert a.sum() == sum(range(10, 100_000))
    b = sharedmem.shmem_as_ndarray(sharedmem.shmem_as_ndarray(library.Value("d", 4)).ctypes._arr) \
        if False else sharedmem.shmem_as_ndarray(library.Value("d", 4))
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
    assert (back.dtype, back.shape, address(back)) == (a.dtype, a.shape, address(a))
    assert same(back, a)
    sent = sharedmem.shmem_as_ndarray(support.roundtrip(c))
    assert address(sent) == address(a) or a.nbytes == 0


def test_as_ctypes_shares_numbers_text_and_fields():
    a = sharedmem.zeros((2, 3), ">i4")
    c = sharedmem.as_ctypes(a)
    c[1][2] = 258
    assert a[1, 2] == 258
    s = sharedmem.as_ctypes(sharedmem.array([b"ab", b"cde"]))
    assert s[1].value == b"cde"
    u = sharedmem.as_ctypes(sharedmem.array(["ab", "cde"]))
    assert u[0].value == "ab"
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


@pytest.mark.parametrize(("array", "error", "message"), [
    (sharedmem.zeros((3, 4)).T, ValueError, "C-contiguous"),
    (sharedmem.zeros(6)[::2], ValueError, "C-contiguous"),
    (read_only(sharedmem.zeros(6)), ValueError, "read-only"),
    (np.zeros(6), ValueError, "asshared"),
    (sharedmem.zeros(3).copy(), ValueError, "asshared"),
    (sharedmem.zeros(3, complex), TypeError, "a.real.dtype"),
    (sharedmem.zeros(3, "M8[s]"), TypeError, "view"),
    (sharedmem.zeros(3, "f2"), TypeError, "view"),
    (sharedmem.zeros(3, {"names": "ab", "formats": ["i4", "i2"], "offsets": [0, 2]}), TypeError, "overlaps"),
    ([1, 2, 3], TypeError, "list"),
], ids=repr)
def test_what_as_ctypes_refuses(array, error, message):
    with pytest.raises(error, match=message):
        sharedmem.as_ctypes(array)


# -- multiprocessing's functions


def test_raw_arrays_are_those_of_multiprocessing(library):
    a = library.RawArray("d", [1, 2, 3])
    assert isinstance(a, ctypes.c_double * 3)
    assert type(a).__name__ == "c_double_Array_3"
    assert a[1:] == [2, 3]
    assert len(a) == 3
    a[:2] = [7, 8]
    assert list(a) == [7, 8, 3]
    with pytest.raises(IndexError):
        a[3]
    with pytest.raises(TypeError):
        a[0] = "text"
    assert list(library.RawArray("i", 4)) == [0] * 4
    assert library.RawArray("c", b"abc").raw == b"abc"
    text = library.RawArray("c", 6)
    text.value = b"abc"
    assert (text.raw, text.value) == (b"abc\0\0\0", b"abc")
    assert ctypes.memmove(text, b"x", 1) == ctypes.addressof(text)
    ctypes.cast(a, ctypes.POINTER(ctypes.c_double))[0] = 5
    assert a[0] == 5


def test_raw_values_are_those_of_multiprocessing(library):
    assert library.RawValue("i").value == 0
    assert library.RawValue("d", 2.5).value == 2.5
    assert isinstance(library.RawValue("d"), ctypes.c_double)
    point = library.RawValue(Point, 1, y=2)
    assert (point.x, point.y) == (1, 2)
    point.x += 1
    assert point.x == 2
    counter = library.RawValue(Counter)
    counter.bump()
    assert counter.n == 11


def test_synchronized_objects_are_those_of_multiprocessing(library):
    a = library.Array("i", range(5))
    assert isinstance(a, sharedctypes.SynchronizedArray)
    assert (len(a), a[:], a[1:3], a[-1]) == (5, [0, 1, 2, 3, 4], [1, 2], 4)
    a[:2] = [7, 8]
    with a:
        a[0] += 1
    assert a.acquire() and a.release() is None
    assert list(a.get_obj()) == [8, 8, 2, 3, 4]
    with a.get_lock(), a.get_lock():
        assert sum(a) == 25
    text = library.Array("c", b"abc")
    assert isinstance(text, sharedctypes.SynchronizedString)
    text.value = b"x"
    assert text.raw == b"x\0c"
    v = library.Value("d", 1.5)
    assert isinstance(v, sharedctypes.Synchronized)
    v.value *= 2
    assert v.value == v.get_obj().value == 3
    point = library.Value(Point, 1, 2)
    point.x += 1
    assert (point.x, point.y) == (2, 2)
    assert "SynchronizedPoint wrapper for" in repr(point)


def test_locks(library):
    own = multiprocessing.get_context("fork").Lock()
    assert library.Array("i", 3, lock=own).get_lock() is own
    assert library.Value("i", lock=own).get_lock() is own
    for none in (library.Array("i", 3, lock=False), library.Value("i", lock=False)):
        assert not hasattr(none, "get_lock")
    assert hasattr(library.Array("i", 3, lock=None), "get_lock")
    with pytest.raises(AttributeError, match="acquire"):
        library.Array("i", 3, lock="text")


def test_the_start_method_is_left_open(python):
    python("""
        import multiprocessing, sharedmem
        sharedmem.Array("i", 3)
        sharedmem.Value("i")
        multiprocessing.set_start_method("spawn")
    """)


def test_an_ndarray_as_initializer():
    a = sharedmem.RawArray("i", np.arange(5, dtype="i8"))
    assert list(a) == [0, 1, 2, 3, 4]
    with pytest.raises(TypeError):
        sharedmem.RawArray("i", np.array([1.5]))


@pytest.mark.parametrize(("arguments", "error"), [
    (("i", -1), ValueError), (("i", 2.5), TypeError), (("i", None), TypeError), (("z", 3), TypeError),
    ((int, 3), TypeError), ((5, 3), TypeError), (("i", ["text"]), TypeError), (("i", object()), TypeError),
    ((ctypes.py_object, 3), TypeError), ((ctypes.c_char_p, 3), TypeError), ((Node, 3), TypeError),
    ((ctypes.POINTER(ctypes.c_int), 3), TypeError), ((ctypes.CFUNCTYPE(None), 3), TypeError),
    ((Node * 2, 3), TypeError)], ids=str)
@pytest.mark.parametrize("function", ["RawArray", "Array"])
def test_bad_arguments(function, arguments, error):
    with pytest.raises(error):
        getattr(sharedmem, function)(*arguments)


def test_pointers_are_refused_by_name():
    with pytest.raises(TypeError, match=r"Node\.next"):
        sharedmem.Value(Node)
    with pytest.raises(TypeError, match=r"Array\('c'"):
        sharedmem.RawValue(ctypes.c_char_p, b"text")
    with pytest.raises(TypeError, match="letters c u b"):
        sharedmem.RawValue("k")


def test_no_room():
    with pytest.raises(MemoryError):
        sharedmem.Array("d", 2**45)


def test_copies_are_private(library):
    a = library.RawArray("i", [1, 2, 3])
    for copied in (copy.copy(a), copy.deepcopy(a)):
        copied[0] = 9
        assert isinstance(copied, ctypes.c_int * 3)
    assert a[0] == 1
    again = sharedctypes.copy(a)
    again[0] = 5
    assert (a[0], list(again)) == (1, [5, 2, 3])


# -- sent


def change(obj):
    """Writes into any of the objects below; what it now holds."""
    if hasattr(obj, "x"):
        obj.x += 1
        return obj.x
    if hasattr(obj, "value") and not isinstance(obj.value, bytes):
        obj.value += 1
        return obj.value
    with getattr(obj, "get_lock", multiprocessing.get_context("fork").Lock)():
        obj[0] += 1
        return obj[0]


def make_all():
    return [
        sharedmem.RawArray("d", [1, 2]), sharedmem.RawValue("i", 1), sharedmem.RawValue(Point, 1, 2),
        sharedmem.Array("d", [1, 2]), sharedmem.Value("i", 1), sharedmem.Value(Point, 1, 2),
        sharedmem.RawArray(ctypes.c_short.__ctype_be__, [1, 2]), sharedmem.as_ctypes(sharedmem.ones(3, ">i2")),
    ]


@pytest.mark.parametrize("kind", support.KINDS)
def test_sent_to_a_process_that_already_runs(kind):
    with support.Remote(kind) as remote:
        for obj in make_all():
            assert remote.call(change, obj) == 2
            assert change(obj) == 3
            assert remote.call(change, obj) == 4


def change_all(objects):
    for obj in objects:
        change(obj)


def forward(source, target):
    target.put(source.get())


def test_through_queues_and_as_arguments(context):
    there, back = context.Queue(), context.Queue()
    objects = make_all()
    process = context.Process(target=forward, args=(there, back))
    process.start()
    there.put(objects)
    returned = back.get(timeout=support.TIMEOUT)
    other = context.Process(target=change_all, args=(returned,))
    other.start()
    assert support.join(process, other) == [0, 0]
    assert [change(obj) for obj in objects] == [3] * len(objects)
    for queue in (there, back):
        queue.close()
        queue.join_thread()


def test_to_a_pool(context):
    counter = sharedmem.Value("L", 0)
    with context.Pool(2) as pool:
        pool.map(change, [counter] * 50)
        pool.close()
        pool.join()
    assert counter.value == 50


def add(counter, rounds):
    for _ in range(rounds):
        with counter:
            counter.value += 1


def test_updates_under_the_lock_are_not_lost(context):
    counter = sharedmem.Value("l", 0)
    processes = [context.Process(target=add, args=(counter, 1000)) for _ in range(3)]
    for process in processes:
        process.start()
    add(counter, 1000)
    assert support.join(*processes) == [0] * 3
    assert counter.value == 4000


def test_with_a_lock_of_multiprocessing_it_goes_where_the_lock_goes(context):
    a = sharedmem.Array("i", 3, lock=context.Lock())
    process = context.Process(target=change, args=(a,))
    process.start()
    assert support.join(process) == [0]
    assert a[0] == 1
    with pytest.raises(RuntimeError, match="inheritance"):
        pickle.dumps(a)


def test_handles_are_small_and_keep_the_type():
    a = sharedmem.RawArray("d", 10**6)
    data = pickle.dumps(a)
    assert len(data) < 500
    b = pickle.loads(data)
    assert type(b) is type(a)
    assert ctypes.addressof(b) == ctypes.addressof(a)


def test_by_value_on_request():
    a = sharedmem.Array("i", range(1000))
    with sharedmem.pickle_by_value():
        data = pickle.dumps(a.get_obj())
    b = pickle.loads(data)
    b[0] = 7
    assert (a[0], b[999]) == (0, 999)
    assert list(support.roundtrip(b)) == list(b)


def test_multiprocessings_objects_stay_as_they_are():
    """Of types that both libraries share, each keeps its own way to travel."""
    ours, theirs = sharedmem.RawArray("d", 3), multiprocessing.RawArray("d", 3)
    assert list(support.roundtrip(ours)) == [0] * 3
    with pytest.raises(RuntimeError, match="inheritance"):
        multiprocessing.reduction.ForkingPickler.dumps(theirs)
    assert bytes(multiprocessing.reduction.ForkingPickler.dumps(ours))


def test_a_handle_of_other_memory_is_refused():
    function, (element, lengths, _) = sharedmem.RawArray("d", 3).__reduce__()
    for memory in (sharedmem.zeros(23, "u1"), sharedmem.zeros(3), sharedmem.zeros((24, 1), "u1")):
        with pytest.raises(ValueError, match="24 bytes"):
            function(element, lengths, memory)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_dtype_and_type_are_inverse(structure):
    dtype = dtype_of(structure)
    if structure is not Either:
        assert dtype_of(type_of(dtype)).itemsize == dtype.itemsize == ctypes.sizeof(structure)
