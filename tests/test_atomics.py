"""sharedmem.atomics: operations on one element, and waiting for it."""

import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time

import hypothesis
import hypothesis.strategies as st
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
def test_what_is_no_index_of_one_element(index):
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
def test_what_is_no_array(thing):
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


# -- add_at


INDICES = [
    3,
    -1,
    slice(2, None),
    Ellipsis,
    [1, 1, -1],
    np.array([], int),
    np.array([0, 1, 1], "u1"),
    np.array([0, 2], "u8"),
    (0, [1, 1]),
    ([0, 0], slice(None, None, -2)),
    ([0, 0], [2, 2]),
    (slice(None), [2, 2]),
    (None, 1),
    np.array([[1, 0], [1, 1]]),
    np.arange(4) % 2 == 0,
]


@pytest.mark.parametrize("dtype", ["i1", "i8", "u4", "f4", "f8"])
@pytest.mark.parametrize("indices", INDICES, ids=repr)
def test_add_at_is_numpy_s(indices, dtype):
    a = sharedmem.array(np.arange(4 * 5 * 3).reshape(4, 5, 3), dtype)
    for view in (a, a[::-1], a[:, ::-2], a.transpose(0, 2, 1)):
        expected = np.array(a)
        step = tuple(np.array(view.strides) // a.itemsize)
        first = (support.address(view) - support.address(a)) // a.itemsize
        same = np.lib.stride_tricks.as_strided(
            expected.reshape(-1)[first:], view.shape, np.array(step) * a.itemsize
        )
        np.add.at(same, indices, 1)
        atomics.add_at(view, indices, 1)
        assert (a == expected).all()


@hypothesis.given(
    st.lists(st.integers(-7, 6), max_size=40),
    st.sampled_from(NUMBERS),
    st.sampled_from([1, -1, 2]),
    st.data(),
)
def test_add_at_of_rows(indices, dtype, step, data):
    a = sharedmem.zeros(14, dtype)[::step][:7]
    expected = np.zeros(7, dtype)
    values = data.draw(st.lists(st.integers(0, 100), min_size=len(indices), max_size=len(indices)))
    chosen, added = np.array(indices, int), np.array(values, dtype)
    np.add.at(expected, chosen, added)
    atomics.add_at(a, chosen, added)
    assert (a == expected).all()


def test_add_at_of_a_bool_mask():
    a = sharedmem.zeros(5)
    atomics.add_at(a, np.array([True, False, True, False, True]), [1, 2, 3])
    assert a.tolist() == [1, 0, 2, 0, 3]


def test_add_at_without_dimensions():
    a = sharedmem.zeros((), int)
    atomics.add_at(a, (), 3)
    atomics.add_at(a, ..., 4)
    assert a == 7


@pytest.mark.parametrize("count", [3, 5000])
def test_a_wrong_index_adds_nothing(count):
    for wrong in (4, -5, sys.maxsize, -sys.maxsize - 1):
        a = sharedmem.zeros(4, int)
        indices = np.zeros(count, int)
        indices[-1] = wrong
        with pytest.raises(IndexError, match=rf"index {wrong} is out of bounds for axis 0 with size 4"):
            atomics.add_at(a, indices, 1)
        with pytest.raises(IndexError):
            atomics.add_at(a, ([0, wrong],), 1)
        assert not a.any()


@pytest.mark.parametrize(
    ("indices", "values", "error"),
    [
        ([1.0], 1, IndexError),
        ("text", 1, IndexError),
        ([0], 1.5, TypeError),
        ([0], [1.5], TypeError),
        ([0], "x", (TypeError, ValueError)),
        ([0], 2**70, OverflowError),
        ([0, 1], [1, 2, 3], ValueError),
        ((0, 0), 1, IndexError),
    ],
)
def test_add_at_with_wrong_arguments(indices, values, error):
    a = sharedmem.zeros(3, int)
    with pytest.raises(error):
        atomics.add_at(a, indices, values)
    assert not a.any()


def test_indices_that_change_meanwhile_do_no_harm():
    """Another thread makes indices wrong after they were checked: what lies around the array stays."""
    whole = sharedmem.zeros(3000, int)
    a = whole[1000:2000]
    indices = sharedmem.array(np.random.default_rng(1).integers(0, 1000, 200_000))
    done = threading.Event()

    def spoil():
        for value in itertools.cycle([5, -1001, 1500, 7]):
            indices[100_000] = value
            if done.is_set():
                return

    thread = threading.Thread(target=spoil)
    thread.start()
    for _ in range(100):
        with contextlib.suppress(IndexError):
            atomics.add_at(a, indices, 1)
    done.set()
    thread.join()
    assert not whole[:1000].any()
    assert not whole[2000:].any()


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
    users = 8 if start_method == "fork" else 2
    indices = sharedmem.array(np.arange(100_000) % 2 + 2)
    arguments = (counts, sums, indices, rounds)
    processes = [context.Process(target=add_many, args=arguments) for _ in range(users)]
    for process in processes:
        process.start()
    assert support.join(*processes) == [0] * users
    assert counts.tolist() == [users * rounds, -users * rounds, users * 50_000, users * 50_000]
    assert sums.tolist() == [users * rounds / 2, 0, users * 25_000, users * 25_000]


def count_under_a_lock(lock, counter, rounds):
    for _ in range(rounds):
        while atomics.compare_exchange(lock, 0, 0, 1) != 0:
            os.sched_yield()
        counter[0] += 1  # not atomic: the lock must do
        atomics.store(lock, 0, 0)


def test_a_lock_made_of_compare_exchange():
    context = multiprocessing.get_context("fork")
    lock, counter, rounds = sharedmem.zeros(1, "u1"), sharedmem.zeros(1, "i8"), 500
    processes = [context.Process(target=count_under_a_lock, args=(lock, counter, rounds)) for _ in range(8)]
    for process in processes:
        process.start()
    assert support.join(*processes) == [0] * 8
    assert counter[0] == 8 * rounds


# -- waiting


@pytest.mark.parametrize("dtype", ["i4", "u4"])
def test_a_wait_returns_at_once_if_the_value_is_another(dtype):
    a = sharedmem.full(2, 5, dtype)
    assert atomics.wait(a, 1, 4) is True
    assert atomics.wait(a, 1, 4, timeout=-1) is True


@pytest.mark.parametrize("timeout", [0, -1, -np.inf, 0.01, 0.25, np.float32(0.1)])
def test_a_timeout(timeout):
    begin = time.monotonic()
    assert atomics.wait(sharedmem.zeros(1, "i4"), 0, 0, timeout) is False
    assert time.monotonic() - begin >= min(timeout, 0.25) - 1e-6


def test_negative_values_are_waited_for():
    assert not atomics.wait(sharedmem.full(1, -3, "i4"), 0, -3, 0)
    assert atomics.wait(sharedmem.full(1, -3, "i4"), 0, 3, 0)


@pytest.mark.parametrize("dtype", ["i8", "u8", "i2", "f4", "f8", "?"])
def test_the_kernel_waits_for_words_of_32_bits(dtype):
    with pytest.raises(TypeError, match="int32 and uint32"):
        atomics.wait(sharedmem.zeros(1, dtype), 0, 0, 0)
    with pytest.raises(TypeError, match="int32 and uint32"):
        atomics.notify(sharedmem.zeros(1, dtype), 0)


def test_wrong_arguments_of_wait_and_notify():
    a = sharedmem.zeros(1, "i4")
    for timeout in ("1", [1], 1j):
        with pytest.raises(TypeError):
            atomics.wait(a, 0, 0, timeout)
    with pytest.raises(ValueError, match="not a number"):
        atomics.wait(a, 0, 0, np.nan)
    with pytest.raises(OverflowError):
        atomics.wait(a, 0, 2**31, 0)
    with pytest.raises(ValueError, match="-1"):
        atomics.notify(a, 0, -1)
    with pytest.raises(TypeError):
        atomics.notify(a, 0, "all")
    assert atomics.notify(a, 0) == 0
    assert atomics.notify(a, 0, 10**30) == 0
    assert atomics.notify(a, 0, 0) == 0


def wait_for(word, woken, value):
    answer = atomics.wait(word, 0, value)
    atomics.add(woken, 0, 1)
    return answer


@pytest.mark.parametrize("kind", support.KINDS)
def test_a_process_is_woken(kind):
    word, woken = sharedmem.zeros(1, "i4"), sharedmem.zeros(1, "i4")
    with support.Remote(kind) as remote:
        remote.conn.send((wait_for, (word, woken, 0)))
        time.sleep(0.02)
        assert atomics.load(woken, 0) == 0
        atomics.store(word, 0, 1)
        atomics.notify(word, 0)
        assert remote.result() is True


def test_a_notification_without_a_change_wakes_nobody_for_good():
    word, woken = sharedmem.zeros(1, "i4"), sharedmem.zeros(1, "i4")
    thread = threading.Thread(target=wait_for, args=(word, woken, 0))
    thread.start()
    assert support.wait_until(lambda: atomics.notify(word, 0, 1) == 1)
    assert support.wait_until(lambda: atomics.notify(word, 0, 1) == 1)  # it sleeps again
    assert atomics.load(woken, 0) == 0
    atomics.store(word, 0, 7)  # who died before `notify` leaves nobody asleep
    thread.join(support.TIMEOUT)
    assert not thread.is_alive()


def test_ctrl_c_ends_a_wait():
    a = sharedmem.zeros(1, "i4")
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))

    def wait():
        timer.start()
        atomics.wait(a, 0, 0)

    with pytest.raises(KeyboardInterrupt):
        wait()
    timer.join()


def test_other_threads_run_meanwhile():
    a = sharedmem.zeros(1, "i4")
    thread = threading.Thread(target=atomics.store, args=(a, 0, 1))
    threading.Timer(0.02, thread.start).start()
    assert atomics.wait(a, 0, 0, support.TIMEOUT)
    thread.join()


def test_what_is_added_and_where_is_as_it_was_at_the_call():
    """As `np.add.at` does it: neither indices nor values change while elements of theirs are added to."""
    ours, numpys = sharedmem.array(np.arange(10)), np.arange(10)
    for a, add_at in ((ours, sharedmem.atomics.add_at), (numpys, np.add.at)):
        add_at(a, np.array([0, 1, 2, 3]), a[[3, 0, 1, 2]])
        add_at(a, np.array([5, 6, 7, 8]), a[4:8])
        add_at(a[:4], a[:4] % 4, 1)
        a[:] = np.arange(10)[::-1]
        add_at(a, a, 1)
    assert ours.tolist() == numpys.tolist()
