"""sharedmem.atomics.add_at: many additions at once, each atomic."""

import contextlib
import itertools
import sys
import threading

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import support

import sharedmem
from sharedmem import atomics

INTEGERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "l", "q", "L", "Q"]
NUMBERS = [*INTEGERS, "f4", "f8"]


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


def test_indices_that_change_meanwhile_are_harmless():
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
