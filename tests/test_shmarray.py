"""shmarray: arrays over ctypes arrays and other buffers, and those with memory of their own."""

import copy
import ctypes
import mmap
import multiprocessing
import pickle

import numpy as np
import pytest
import support
from samples import STRUCTURED, VIEWS, fill, name
from support import address, same

import sharedmem
import shmarray
from shmarray import shmarray as Shmarray

MIB = 1 << 20


def described(a):
    """What must be the same after a hand-over, apart from the values."""
    return type(a), a.shape, a.strides, a.dtype, a.flags.writeable


# -- over memory of the caller


@pytest.mark.parametrize("memory", [multiprocessing.RawArray, sharedmem.RawArray])
def test_constructed_over_a_ctypes_array(memory):
    raw = memory("d", 24)
    a = Shmarray(raw, (2, 3), strides=(8, 32), offset=16)
    assert a.dtype == float
    assert a.ctypesArray is raw
    assert a[1:, ::2].ctypesArray is raw
    a[1, 2] = 7
    assert raw[2 + 1 + 8] == 7
    assert Shmarray(raw, (4, 6), order="F").flags.f_contiguous
    assert Shmarray(raw, 48, np.float32).nbytes == 24 * 8


def test_the_memory_stays_as_long_as_the_array():
    a = Shmarray(sharedmem.RawArray("i", range(1000)), 1000, np.intc)[500:]
    support.settle()
    assert a.sum() == sum(range(500, 1000))


@pytest.mark.parametrize(
    ("make", "writeable"),
    [
        (lambda: bytearray(80), True),
        (lambda: bytes(80), False),
        (lambda: (ctypes.c_double * 10)(), True),
        (lambda: memoryview(bytearray(80)), True),
        (lambda: np.zeros(10), True),
        (lambda: sharedmem.zeros(10), True),
        (lambda: mmap.mmap(-1, 80), True),
    ],
    ids=["bytearray", "bytes", "ctypes", "memoryview", "ndarray", "SharedArray", "mmap"],
)
def test_any_buffer_will_do(make, writeable):
    a = Shmarray(make(), 10)
    assert a.flags.writeable is writeable
    assert not a.any()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((None, 3), TypeError),
        (("text", 3), TypeError),
        ((bytearray(8), 2), TypeError),
        ((bytearray(8), -1), ValueError),
        ((bytearray(16), 1, float, None, -8), (ValueError, TypeError)),
        ((bytearray(16), 2, float, (16,)), ValueError),
        ((bytearray(16), 2, float, (-8,)), ValueError),
        ((bytearray(16), 2, object), TypeError),
        ((bytearray(16), 2, [("x", object)]), TypeError),
        ((bytearray(16), 2, "no such type"), TypeError),
    ],
    ids=str,
)
def test_bad_arguments(arguments, error):
    with pytest.raises(error):
        Shmarray(*arguments)


def test_an_array_with_a_lock_is_refused():
    with pytest.raises(TypeError, match="get_obj"):
        Shmarray(multiprocessing.Array("d", 3), 3)


# -- with memory of its own


@pytest.mark.parametrize("dtype", ["f8", ">i2", "S5", "g", *STRUCTURED[:4]], ids=lambda d: name(np.dtype(d)))
def test_create_makes_what_numpy_makes(dtype):
    for shape in [7, (), (3, 4), [2, 5]]:
        a = shmarray.create(shape, dtype)
        expected = np.empty(shape, dtype)
        assert described(a) == (Shmarray, *described(expected)[1:])
        assert sharedmem.is_shared(a)
        assert same(fill(a), fill(expected))


def test_zeros_ones_and_their_defaults():
    assert shmarray.create(3).dtype == shmarray.zeros(3).dtype == shmarray.ones(3).dtype == float
    assert shmarray.zeros((2, 3), "i2").tolist() == [[0] * 3] * 2
    assert shmarray.ones((2, 3), "i2").tolist() == [[1] * 3] * 2
    assert type(shmarray.ones(2)) is type(shmarray.zeros(2)) is Shmarray


@pytest.mark.parametrize("dtype", ["f8", "S3"])
@pytest.mark.parametrize("alignment", [1, 2, 16, 32, 64, 128, 4096, MIB, 2 * MIB])
def test_alignment_is_kept_wherever_the_array_goes(alignment, dtype):
    kept = [shmarray.create((5, 7), dtype, alignment) for _ in range(4)]
    assert {address(a) % alignment for a in kept} == {0}
    with support.Remote("spawn") as remote:
        assert {remote.call(address, a) % alignment for a in kept} == {0}
    for i, a in enumerate(kept):
        a[...] = i
    assert [set(a.ravel().tolist()) for a in kept] == [
        set(np.full(1, i, dtype).tolist()) for i in range(len(kept))
    ]


@pytest.mark.parametrize("alignment", [0, -32, 3, 48, 4 * MIB, 2**62])
def test_an_alignment_that_cannot_be(alignment):
    with pytest.raises(ValueError, match="power of two"):
        shmarray.create(3, alignment=alignment)


def test_bad_requests():
    with pytest.raises(TypeError):
        shmarray.create(3, alignment=1.5)
    with pytest.raises(TypeError):
        shmarray.create(3, object)
    with pytest.raises(ValueError, match="negative"):
        shmarray.zeros(-3)
    with pytest.raises(MemoryError):
        shmarray.create(2**60 - 1000)
    with pytest.raises(MemoryError):
        shmarray.create(2**60 - 1000, alignment=4096)


@pytest.mark.parametrize(
    "source",
    [
        np.arange(12.0).reshape(3, 4).T,
        [[1, 2], [3, 4]],
        5,
        np.array([(1, 2.5)], "i4,f8"),
        np.arange(10)[::-3],
    ],
    ids=repr,
)
def test_create_copy(source):
    a = shmarray.create_copy(source)
    assert type(a) is Shmarray
    assert a.flags.c_contiguous
    assert sharedmem.is_shared(a)
    assert same(a, np.asarray(source))


def test_the_ctypes_array_of_created_arrays():
    a = shmarray.create((3, 4))
    raw = a[1:].ctypesArray
    assert isinstance(raw, ctypes.Array)
    assert len(raw) == a.nbytes
    raw[0] = 1
    assert a.view("i1")[0, 0] == 1


# -- views, copies, arithmetic


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_views_are_shmarrays_and_go_by_handle(view):
    a = fill(shmarray.create((6, 7)))
    v = view(a)
    b = support.roundtrip(v)
    assert described(b) == described(v)
    assert same(b, v)
    if v.size:
        assert address(b) == address(v)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol(protocol):
    a = fill(shmarray.create((3, 4), "i4"))
    b = support.roundtrip(a[:, ::-2], protocol)
    b[0, 0] = 99
    assert a[0, 3] == 99


def test_a_read_only_view_stays_read_only():
    a = shmarray.zeros(5)
    a.flags.writeable = False
    assert not support.roundtrip(a).flags.writeable


def test_copies_are_private_and_go_by_value():
    a = fill(shmarray.create((3, 4)))
    for copied in (a.copy(), copy.copy(a), copy.deepcopy(a), a[[0, 2]], a[a > 3]):
        assert not sharedmem.is_shared(copied)
        assert getattr(copied, "ctypesArray", None) is None
        b = support.roundtrip(copied)
        assert same(b, copied)
        b[...] = 0
        assert copied.any()
    assert same(support.roundtrip(a), fill(np.empty((3, 4))))


def test_a_copy_of_an_array_over_memory_of_the_caller():
    a = Shmarray(multiprocessing.RawArray("d", [1, 2, 3]), 3)
    assert same(support.roundtrip(a.copy()), np.array([1.0, 2, 3]))
    assert a.copy().ctypesArray is None


def test_arithmetic_gives_ordinary_arrays():
    a = shmarray.ones((2, 3))
    assert type(a + 1) is type(a * a) is type(np.sqrt(a)) is type(a > 0) is np.ndarray
    assert isinstance(a.sum(), float)
    before = address(a)
    a += 1
    assert type(a) is Shmarray
    assert address(np.add(a, a, out=a)) == before
    assert a.tolist() == [[4] * 3] * 2


def test_empty_arrays():
    for a in (shmarray.create(0), shmarray.zeros((3, 0, 2), "i4"), Shmarray(bytearray(8), 0)):
        assert described(support.roundtrip(a))[:2] == described(a)[:2]


# -- to other processes


def add_one(a):
    a += 1
    return described(a)


@pytest.mark.parametrize("kind", support.KINDS)
def test_sent_to_a_process_that_already_runs(kind):
    a = fill(shmarray.create((4, 6), ">i4"))
    before = a.copy()
    with support.Remote(kind) as remote:
        assert remote.call(add_one, a[::-1, 1::2]) == described(a[::-1, 1::2])
    before[:, 1::2] += 1
    assert same(a, before)


def add_to_each(*arrays):
    for a in arrays:
        a += 1


def test_over_a_raw_array_to_a_process_that_starts(context):
    raw = context.RawArray("d", 24)
    a = Shmarray(raw, (2, 3), offset=16, strides=(64, -8))
    b = Shmarray(raw, (3, 4), order="F", offset=96)
    process = context.Process(target=add_to_each, args=(a, b))
    process.start()
    assert support.join(process) == [0]
    assert (a == 1).all()
    assert (b == 1).all()
    assert sum(raw) == 6 + 12


def test_over_a_raw_array_to_a_running_process_is_an_error_that_says_why():
    a = Shmarray(multiprocessing.RawArray("d", 3), 3)
    with pytest.raises(RuntimeError, match=r"as it starts.*create_copy"):
        pickle.dumps(a)
    with multiprocessing.get_context(support.QUICKEST).Pool(1) as pool:
        with pytest.raises(RuntimeError, match="as it starts"):
            pool.apply(add_one, (a,))
        pool.terminate()
        pool.join()


@pytest.mark.parametrize("memory", [mmap.mmap(-1, 80), memoryview(bytearray(80))], ids=["mmap", "memoryview"])
def test_over_memory_that_cannot_be_sent(memory):
    a = Shmarray(memory, 10)
    if isinstance(memory, memoryview):  # NumPy keeps what is behind it
        assert same(support.roundtrip(a), a)
    else:
        with pytest.raises(TypeError, match="create_copy"):
            pickle.dumps(a)
    assert same(support.roundtrip(shmarray.create_copy(a)), a)


def test_by_value_on_request():
    a = shmarray.ones(1000)
    with sharedmem.pickle_by_value():
        data = pickle.dumps(a)
    b = pickle.loads(data)
    assert type(b) is Shmarray
    b[0] = 5
    assert a[0] == 1
