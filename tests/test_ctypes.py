"""ctypes objects in shared memory: the interface of multiprocessing's, and how they travel."""

import contextlib
import copy
import ctypes
import multiprocessing
import pickle
from multiprocessing import sharedctypes

import numpy as np
import pytest
import support

import sharedmem


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_double), ("y", ctypes.c_double)]


class Node(ctypes.Structure):
    _fields_ = [("value", ctypes.c_int), ("next", ctypes.POINTER(ctypes.c_int))]


class Counter(ctypes.Structure):
    """With a constructor and a method of its own."""

    _fields_ = [("n", ctypes.c_int)]

    def __init__(self, start=10):
        super().__init__(start)

    def bump(self):
        self.n += 1


LIBRARIES = [multiprocessing, sharedmem]


@pytest.fixture(params=LIBRARIES, ids=lambda library: library.__name__)
def library(request):
    """multiprocessing and sharedmem, which must behave alike."""
    return request.param


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
    point = library.RawValue(Point, 1, 2)
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
    assert a.acquire()
    assert a.release() is None
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
    own = multiprocessing.get_context(support.QUICKEST).Lock()
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


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("i", -1), ValueError),
        (("i", 2.5), TypeError),
        (("i", None), TypeError),
        (("z", 3), TypeError),
        ((int, 3), TypeError),
        ((5, 3), TypeError),
        (("i", ["text"]), TypeError),
        (("i", object()), TypeError),
        ((ctypes.py_object, 3), TypeError),
        ((ctypes.c_char_p, 3), TypeError),
        ((Node, 3), TypeError),
        ((ctypes.POINTER(ctypes.c_int), 3), TypeError),
        ((ctypes.CFUNCTYPE(None), 3), TypeError),
        ((Node * 2, 3), TypeError),
    ],
    ids=str,
)
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
    code = """
    import sharedmem, sys
    kept = []
    try:
        for _ in range(3):      # a 32-bit process may have room for one
            kept.append(sharedmem.Array("d", sys.maxsize // 8 - 1000))
    except MemoryError as error:
        print("cannot allocate" in str(error))
    """
    assert support.check_python(code) == "True"


def test_copies_are_private():
    a = sharedmem.RawArray("i", [1, 2, 3])
    for copied in (copy.copy(a), copy.deepcopy(a), support.roundtrip(copy.copy(sharedmem.RawValue(Point)))):
        copied.changed = True
        assert isinstance(copied, (ctypes.c_int * 3, Point))
        ctypes.memset(ctypes.addressof(copied), 0, ctypes.sizeof(copied))
    assert list(a) == [1, 2, 3]
    private = type(a)(4, 5)
    assert list(private) == [4, 5, 0]


def test_multiprocessings_copy_belongs_to_multiprocessing():
    a = sharedmem.RawArray("i", [1, 2, 3])
    again = sharedctypes.copy(a)
    again[0] = 5
    assert (a[0], list(again)) == (1, [5, 2, 3])
    process = multiprocessing.get_context("spawn").Process(target=change_all, args=([a, again],))
    process.start()
    assert support.join(process) == [0]
    assert (a[0], again[0]) == (2, 6)
    dumps = multiprocessing.reduction.ForkingPickler.dumps
    assert list(pickle.loads(dumps(a))) == [2, 2, 3]
    with pytest.raises(RuntimeError, match="inheritance"):
        dumps(again)


# -- sent


def change(obj):
    """Adds one to any of the objects below, under its lock if it has one; what it now holds."""
    with obj.get_lock() if hasattr(obj, "get_lock") else contextlib.nullcontext():
        if hasattr(obj, "x"):
            obj.x += 1
            return obj.x
        if hasattr(obj, "value"):
            obj.value += 1
            return obj.value
        obj[0] += 1
        return obj[0]


def make_all():
    return [
        sharedmem.RawArray("d", [1, 2]),
        sharedmem.RawValue("i", 1),
        sharedmem.RawValue(Point, 1, 2),
        sharedmem.Array("d", [1, 2]),
        sharedmem.Value("i", 1),
        sharedmem.Value(Point, 1, 2),
        sharedmem.RawArray(ctypes.c_short.__ctype_be__, [1, 2]),
        sharedmem.as_ctypes(sharedmem.ones(3, ">i2")),
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


def test_with_a_lock_of_multiprocessing_it_travels_as_that_lock_does(context):
    a = sharedmem.Array("i", 3, lock=context.RLock())
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
