"""Messages of `sharedmem.dumps` that were altered: no array may read what is not its own.

A program that can alter the pickle of a message can run any code where it is loaded, as with every pickle.
What is altered here are the numbers in it that say where data lies, and the data itself.
"""

import pickle
import random
import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import sharedmem
from sharedmem._out_of_band import reduce_array, restore_array
from sharedmem._pieces import Pieces, gather
from sharedmem.objects import _receive


def parts_of(obj):
    """What a message of `dumps` consists of."""
    buffers = []
    pickler_output = _pickle_left_out(obj, buffers)
    sources, table = gather(buffers)
    return sources, table, pickler_output


def _pickle_left_out(obj, buffers):
    import io

    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, 5, buffer_callback=buffers.append)
    pickler.dispatch_table = {np.ndarray: reduce_array}
    pickler.dump(obj)
    return stream.getvalue()


def test_a_message_put_together_again_loads():
    obj = [np.arange(100, dtype="i8"), np.asarray(sharedmem.ones(10)), np.ones((4, 5), order="F")]
    got = _receive(*parts_of(obj))
    assert all((a == b).all() for a, b in zip(got, obj, strict=True))


NUMBERS = st.one_of(
    st.integers(0, 3), st.integers(0, 2000), st.sampled_from([2**31, 2**63 - 1, 2**63, 2**64 - 1])
)


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=2, max_size=2))
@example([(0, 0, 800), (1, 0, 80)])
@example([(0, 2**64 - 8, 800), (1, 2**64 - 72, 80)])
@example([(0, 801, 0), (2, 0, 80)])
def test_a_table_of_any_numbers(rows):
    """An array over the memory of the message, or a ValueError."""
    kept = np.asarray(sharedmem.ones(10))
    sources, table, stream = parts_of([np.arange(100, dtype="i8"), kept])
    assert len(table) == 48
    try:
        got = _receive(sources, struct.pack("<6Q", *rows[0], *rows[1]), stream)
    except ValueError:
        return
    for a, row in zip(got, rows, strict=True):
        source = sources[row[0]]
        first, last = start_and_end(source)
        start, end = start_and_end(a)  # contiguous, as it was
        assert first <= start <= end <= last


def start_and_end(a):
    start = a.__array_interface__["data"][0]
    return start, start + a.nbytes


@pytest.mark.parametrize("cut", range(1, 24))
def test_a_table_that_is_cut_off(cut):
    sources, table, stream = parts_of([np.arange(100, dtype="i8"), np.ones(3)])
    with pytest.raises(ValueError, match="truncated"):
        _receive(sources, table[:-cut], stream)


def test_a_table_with_too_few_pieces():
    sources, table, stream = parts_of([np.arange(100, dtype="i8"), np.ones(3)])
    with pytest.raises((ValueError, pickle.UnpicklingError)):
        _receive(sources, table[:24], stream)


def test_invalid_sources():
    _, table, stream = parts_of([np.arange(100, dtype="i8")])
    shared = sharedmem.ones(1000)
    for sources in (
        [],
        [None],
        [shared],
        [np.ones(1000, "i1")],
        [np.ones((9, 99), "u1")],
        [np.ones(9, "u1")],
        [np.ones(9000, "u1")[::2]],
        [b"x" * 1000],
        ["text"],
        [np.array([None] * 1000)],
    ):
        with pytest.raises(ValueError, match="message"):
            _receive(sources, table, stream)
    for sources in (None, (np.ones(1000, "u1"),)):
        with pytest.raises(TypeError):
            _receive(sources, table, stream)


def test_altered_bytes_of_a_handle():
    """Its checksum finds each of them; the lease is consumed by the right one alone."""
    message = dumps_of_one()
    start = message.index(b"_load") + 10
    end = start + 50
    numbers = random.Random(1)
    for _ in range(200):
        altered = bytearray(message)
        at = numbers.randrange(start, end)
        altered[at] ^= 1 << numbers.randrange(8)
        with pytest.raises(
            (
                ValueError,
                pickle.UnpicklingError,
                IndexError,
                KeyError,
                AttributeError,
                EOFError,
                TypeError,
                OverflowError,
                MemoryError,
            )
        ):
            sharedmem.loads(altered)
    assert sharedmem.loads(message)["a"].sum() == 4950


def dumps_of_one():
    return sharedmem.dumps({"a": np.arange(100, dtype="i8")})


@pytest.mark.parametrize("length", [0, 1, 10, 50, 100, -1])
def test_a_message_that_is_cut_off(length):
    message = dumps_of_one()
    with pytest.raises((pickle.UnpicklingError, EOFError, ValueError)):
        sharedmem.loads(message[:length])
    assert sharedmem.loads(message)["a"].sum() == 4950


def test_shared_bytes_of_any_value_are_numbers_only():
    """Whatever another process writes into the memory before the message is loaded."""
    s = sharedmem.share({"a": np.arange(100, dtype="i8"), "b": np.zeros(50, "S8"), "c": np.zeros(20, "?")})
    numbers = random.Random(2)
    block = s["a"]
    while block.base is not None:
        block = block.base
    for _ in range(50):
        block[:] = np.frombuffer(numbers.randbytes(block.size), "u1")
        got = sharedmem.loads(sharedmem.dumps(s))
        assert [(each.dtype, each.shape) for each in got.values()] == [
            ("i8", (100,)),
            ("S8", (50,)),
            ("?", (20,)),
        ]
        assert np.shares_memory(got["a"], s["a"])


# -- arrays over a piece of memory


PIECE = np.zeros(80, "u1")
F8 = np.dtype("f8")


@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ((11,), None),
        ((-1,), None),
        ((2, 2, 3), "F"),
        ((2**62, 4), None),
        ((2**63 - 1,), None),
        ((2**32, 2**32), "F"),
        ((10,), (16,)),
        ((10,), (-16,)),
        ((2,), (2**63 - 1,)),
        ((2,), (-(2**63),)),
        ((3, 3), (-(2**62), 2**62)),
        ((10,), (8, 8)),
        ((2**64,), None),
        ((2,), (2**64,)),
        (("2",), None),
        ((2.0,), None),
        ((2,), ("8",)),
        ([2], None),
        (2, None),
        (None, None),
        ((1,) * 65, None),
    ],
    ids=repr,
)
def test_a_shape_that_does_not_fit(shape, strides):
    with pytest.raises(ValueError, match=r"message|dimension"):
        restore_array(PIECE, F8, shape, strides)


@pytest.mark.parametrize(
    "dtype",
    ["f8", None, np.dtype(object), np.dtype([("a", "O")]), np.dtype(("f8", 2)), np.dtype("S0"), float],
    ids=repr,
)
def test_an_invalid_dtype(dtype):
    with pytest.raises(ValueError, match="dtype"):
        restore_array(PIECE, dtype, (1,), None)


@pytest.mark.parametrize(
    "piece",
    [np.zeros((8, 10), "u1"), np.zeros(160, "u1")[::2], np.zeros(10), np.array([None] * 10)],
    ids=["2-d", "with gaps", "no bytes", "objects"],
)
def test_an_invalid_piece(piece):
    with pytest.raises(ValueError, match="memory"):
        restore_array(piece, F8, (1,), None)


@pytest.mark.parametrize("piece", [None, 5, "text", [1]], ids=repr)
def test_a_piece_that_is_not_a_buffer(piece):
    with pytest.raises((TypeError, ValueError)):
        restore_array(piece, F8, (1,), None)


@given(
    st.lists(st.integers(-2, 12), max_size=4),
    st.one_of(st.none(), st.just("F"), st.lists(st.integers(-90, 90), max_size=4)),
)
def test_any_geometry(shape, strides):
    """The array lies in its piece, or there is a ValueError."""
    strides = tuple(strides) if isinstance(strides, list) else strides
    try:
        got = restore_array(PIECE, F8, tuple(shape), strides)
    except ValueError:
        return
    assert got.shape == tuple(shape)
    if got.size:
        first, last = start_and_end(PIECE)
        reach = [(n - 1) * step for n, step in zip(got.shape, got.strides, strict=True)]
        start = got.__array_interface__["data"][0]
        assert first <= start + sum(each for each in reach if each < 0)
        assert start + sum(each for each in reach if each > 0) + 8 <= last


def test_reading_only_what_may_be_written():
    piece = np.zeros(80, "u1")
    piece.flags.writeable = False
    assert not restore_array(piece, F8, (10,), None).flags.writeable
    assert not restore_array(bytes(80), F8, (10,), None).flags.writeable
    assert restore_array(bytearray(80), F8, (10,), None).flags.writeable


def test_wrong_arguments():
    with pytest.raises(TypeError):
        gather(None)
    with pytest.raises(TypeError):
        gather([b"no pickle buffer"])
    with pytest.raises(TypeError):
        reduce_array([1])
    with pytest.raises(TypeError):
        Pieces([], None)
    assert list(Pieces([], b"")) == []
