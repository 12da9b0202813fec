"""sharedmem.atomics: operations on one element, and waiting for it."""

import multiprocessing
import os
import time

import numpy as np
import pytest
import support

import sharedmem
from sharedmem import atomics

INTEGERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "l", "q", "L", "Q"]
NUMBERS = [*INTEGERS, "f4", "f8"]
ALL = [*NUMBERS, "?"]


def test_the_package_has_it_without_an_import_of_its_own(python):
    code = """
        import sys, sharedmem
        assert "sharedmem.atomics" not in sys.modules and "sharedmem._atomics" not in sys.modules
        print(sharedmem.atomics.add(sharedmem.zeros(1, int), 0, 1))
    """
    assert python(code) == "0"


# -- one element


@pytest.mark.parametrize("dtype", NUMBERS)
def test_arithmetic_returns_the_value_before(dtype):
    a = sharedmem.array([3, 50, 7], dtype)
    assert atomics.load(a, 1) == 50
    assert atomics.add(a, 1, 20) == 50
    assert atomics.sub(a, 1, 60) == 70
    assert atomics.exchange(a, 1, 100) == 10
    assert atomics.compare_exchange(a, 1, 99, 1) == 100
    assert atomics.compare_exchange(a, 1, 100, 1) == 100
    assert atomics.store(a, 0, 9) is None
    assert a.tolist() == [9, 1, 7]
    assert type(atomics.load(a, 1)) is (float if dtype.startswith("f") else int)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_bits(dtype):
    a = sharedmem.array([0, 0b1100], dtype)
    assert atomics.and_(a, 1, 0b0110) == 0b1100
    assert atomics.or_(a, 1, 0b0011) == 0b0100
    assert atomics.xor(a, 1, 0b0101) == 0b0111
    assert a.tolist() == [0, 0b0010]


def test_bool():
    a = sharedmem.zeros(2, bool)
    assert atomics.exchange(a, 0, True) is False
    assert atomics.compare_exchange(a, 0, np.True_, False) is True
    assert atomics.or_(a, 1, 1) is False
    assert atomics.xor(a, 1, True) is True
    assert atomics.and_(a, 1, np.bool_(True)) is False
    atomics.store(a, 0, 1)
    assert a.tolist() == [True, False]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_sums_wrap_as_numpy_s_do(dtype):
    limits = np.iinfo(dtype)
    a = sharedmem.full(1, limits.max, dtype)
    assert atomics.add(a, 0, 1) == limits.max
    assert atomics.sub(a, 0, 1) == limits.min
    assert a[0] == limits.max


@pytest.mark.parametrize("dtype", INTEGERS)
def test_whole_range_and_nothing_beyond(dtype):
    limits, a = np.iinfo(dtype), sharedmem.zeros(1, dtype)
    for value in (limits.min, limits.max, np.asarray(limits.max, dtype)[()]):
        atomics.store(a, 0, value)
        assert atomics.load(a, 0) == int(value)
    for value in (int(limits.min) - 1, int(limits.max) + 1, 2**64, -(2**64)):
        with pytest.raises(OverflowError, match=rf"{value} is out of the range of u?int{8 * a.itemsize}"):
            atomics.add(a, 0, value)
        with pytest.raises(OverflowError):
            atomics.compare_exchange(a, 0, value, 0)
    assert a[0] == limits.max


def test_floats_are_compared_by_their_bytes():
    a = sharedmem.array([np.nan, -0.0])
    assert np.isnan(atomics.compare_exchange(a, 0, np.nan, 1))
    assert atomics.compare_exchange(a, 1, 0.0, 1) == 0
    assert a[0] == 1
    assert np.signbit(a[1])


def test_indices():
    a = sharedmem.zeros((3, 4), "i4")
    atomics.add(a, (1, 2), 1)
    atomics.add(a.T, (2, -2), 1)
    atomics.add(a[::-2, ::-1], (np.int64(0), 0), 5)
    atomics.add(a[1], np.uint8(0), 7)
    atomics.add(a[2, 3, ...], (), 1)
    assert a.tolist() == [[0, 0, 0, 0], [7, 0, 2, 0], [0, 0, 0, 6]]


def test_a_field():
    a = sharedmem.zeros(3, [("count", "i4"), ("sum", "f4")])
    assert atomics.add(a["count"], 1, 2) == 0
    assert atomics.add(a["sum"], 1, 2.5) == 0
    assert a.tolist() == [(0, 0), (2, 2.5), (0, 0)]


@pytest.mark.parametrize("index", [3, -4, (3,), 2**70, -(2**70)])
def test_indices_out_of_bounds(index):
    with pytest.raises(IndexError):
        atomics.add(sharedmem.zeros(3, int), index, 1)


@pytest.mark.parametrize(
    "index", [1.0, "1", None, slice(1), [1], np.array([1, 1]), (), (1, 1), True, np.True_, Ellipsis]
)
def test_invalid_indices_of_an_element(index):
    a = sharedmem.zeros(3, int)
    for call in (atomics.load, lambda a, i: atomics.store(a, i, 1), lambda a, i: atomics.add(a, i, 1)):
        with pytest.raises((IndexError, TypeError)):
            call(a, index)
    assert not a.any()


@pytest.mark.parametrize(
    "dtype", ["f2", "g", "c8", "M8[s]", "m8[s]", "S4", "U1", "V8", [("x", "i4")], object], ids=str
)
def test_other_dtypes(dtype):
    with pytest.raises(TypeError, match="bool, integers of 1 to 8 bytes, float32 and float64, not on"):
        atomics.load(np.zeros(2, dtype), 0)


@pytest.mark.parametrize("dtype", ["i2", "u4", "i8", "f4", "f8"])
def test_the_other_byte_order(dtype):
    swapped = np.dtype(dtype).newbyteorder()
    with pytest.raises(TypeError, match=f"byte order of this machine, not {swapped.str}"):
        atomics.add(sharedmem.zeros(2, swapped), 0, 1)


@pytest.mark.parametrize("dtype", ["i2", "u4", "i8", "f4", "f8"])
def test_elements_that_are_not_aligned(dtype):
    size = np.dtype(dtype).itemsize
    a = sharedmem.zeros(3 * size, "u1")[1 : 1 + 2 * size].view(dtype)
    for call in (
        lambda: atomics.load(a, 1),
        lambda: atomics.add(a, 1, 1),
        lambda: atomics.add_at(a, [1], 1),
    ):
        with pytest.raises(ValueError, match="aligned"):
            call()
    assert not a.any()
    packed = sharedmem.zeros(4, [("flag", "i1"), ("x", dtype)])["x"]
    with pytest.raises(ValueError, match="aligned"):
        atomics.add_at(packed, [1], 1)


def test_read_only_arrays_can_be_read():
    a = sharedmem.ones(2, "i4")
    a.flags.writeable = False
    assert atomics.load(a, 0) == 1
    assert atomics.wait(a, 0, 0)
    operand = [
        atomics.store,
        atomics.exchange,
        atomics.add,
        atomics.sub,
        atomics.and_,
        atomics.or_,
        atomics.xor,
    ]
    for function in [*operand, atomics.add_at]:
        with pytest.raises(ValueError, match="read-only"):
            function(a, 0, 1)
    with pytest.raises(ValueError, match="read-only"):
        atomics.compare_exchange(a, 0, 1, 2)
    assert a.tolist() == [1, 1]


def test_operations_that_a_dtype_has_not():
    for function in (atomics.and_, atomics.or_, atomics.xor):
        with pytest.raises(TypeError, match="integers and bool, not on float64"):
            function(sharedmem.zeros(1), 0, 1)
    for function in (atomics.add, atomics.sub, atomics.add_at):
        with pytest.raises(TypeError, match="not on bool"):
            function(sharedmem.zeros(1, bool), 0, 1)


@pytest.mark.parametrize("thing", [[1], 1, None, memoryview(b"abcd"), "text", np.int64(1)], ids=repr)
def test_arguments_that_are_not_arrays(thing):
    for function in (atomics.add, atomics.store, atomics.add_at):
        with pytest.raises(TypeError, match="ndarray"):
            function(thing, 0, 1)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("i4", 1.5),
        ("i4", "1"),
        ("i4", None),
        ("f8", "1"),
        ("f8", None),
        ("f8", 1j),
        ("?", 1.0),
        ("?", "x"),
        ("?", None),
    ],
)
def test_values_of_another_kind(dtype, value):
    a = sharedmem.zeros(1, dtype)
    for function in (atomics.store, atomics.exchange):
        with pytest.raises(TypeError):
            function(a, 0, value)
    with pytest.raises(TypeError):
        atomics.compare_exchange(a, 0, value, 0)
    with pytest.raises(OverflowError):
        atomics.store(sharedmem.zeros(1, bool), 0, 2)


def test_an_operand_that_raises_leaves_the_element_alone():
    class Bad:
        def __index__(self):
            raise KeyError("bad")

    a = sharedmem.ones(1, int)
    with pytest.raises(KeyError, match="bad"):
        atomics.add(a, 0, Bad())
    with pytest.raises(KeyError, match="bad"):
        atomics.add(a, Bad(), 1)
    assert a[0] == 1


# -- several processes


def add_many(counts, sums, indices, rounds):
    for _ in range(rounds):
        atomics.add(counts, 0, 1)
        atomics.sub(counts, 1, 1)
        atomics.add(sums, 0, 0.5)
    atomics.add_at(counts, indices, 1)
    atomics.add_at(sums, indices, 0.5)


def test_no_addition_is_lost(context, start_method):
    counts, sums, rounds = sharedmem.zeros(4, "i8"), sharedmem.zeros(4, "f8"), 10_000
    users = 8 if start_method == support.QUICKEST else 2
    indices = sharedmem.array(np.arange(100_000) % 2 + 2)
    arguments = (counts, sums, indices, rounds)
    processes = [context.Process(target=add_many, args=arguments) for _ in range(users)]
    for process in processes:
        process.start()
    assert support.join(*processes) == [0] * users
    assert counts.tolist() == [users * rounds, -users * rounds, users * 50_000, users * 50_000]
    assert sums.tolist() == [users * rounds / 2, 0, users * 25_000, users * 25_000]


give_way = getattr(os, "sched_yield", lambda: time.sleep(0))  # Windows has no such call


def count_under_a_lock(lock, counter, rounds):
    for _ in range(rounds):
        while atomics.compare_exchange(lock, 0, 0, 1) != 0:
            give_way()
        counter[0] += 1  # not atomic: the lock must do
        atomics.store(lock, 0, 0)


def test_a_lock_made_of_compare_exchange():
    context = multiprocessing.get_context(support.QUICKEST)
    lock, counter, rounds = sharedmem.zeros(1, "u1"), sharedmem.zeros(1, "i8"), 500
    processes = [context.Process(target=count_under_a_lock, args=(lock, counter, rounds)) for _ in range(8)]
    for process in processes:
        process.start()
    assert support.join(*processes) == [0] * 8
    assert counter[0] == 8 * rounds
