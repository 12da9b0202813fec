"""Handles with altered fields whose checksum was made right again.

A checksum detects accidents, but a forger can compute it: the checks behind it must let no array
read pointers, or bytes outside of its block.
"""

import itertools
import pickle
import pickletools
import random
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
from forging import LEASE, MEMFD, Forgery
from support import address, settle

import sharedmem
from sharedmem import StaleHandleError
from sharedmem.array import _load


def handle_of(a):
    return a.__reduce_ex__(4)[1][0]


def forged(a, axes=None, dtype=None, **numbers):
    """The handle of `a` with other fields."""
    forgery = Forgery(handle_of(a))
    assert numbers.keys() <= forgery.numbers.keys()
    forgery.numbers.update(numbers)
    if axes is not None:
        forgery.axes = axes
    if dtype is not None:
        forgery.dtype = dtype
    return forgery.encode()


def test_a_handle_put_together_again_loads():
    for a in (sharedmem.ones(10), sharedmem.ones((3, 4), "i2")[::-1, ::2], sharedmem.ones((), "M8[s]")):
        got = _load(forged(a))
        assert (address(got), got.shape, got.strides, got.dtype) == (address(a), a.shape, a.strides, a.dtype)


WITH_OBJECTS = [np.dtype("O"), np.dtype([("a", "O")]), np.dtype([("a", "i4"), ("b", "O")])[["b"]]]


@pytest.mark.parametrize("text", [b"O", b"|O", b"|O8", b"<O", b"|O4"])
def test_text_that_means_objects(text):
    a = sharedmem.ones(10)
    with pytest.raises(ValueError, match="objects"):
        _load(forged(a, dtype=text, itemsize=np.dtype("O").itemsize))


@pytest.mark.parametrize("given", WITH_OBJECTS, ids=str)
def test_a_dtype_that_has_objects(given):
    a = sharedmem.ones(40, "u1")
    with pytest.raises(ValueError, match="objects"):
        _load(forged(a, dtype=b"", itemsize=given.itemsize, axes=[1]), given)


@pytest.mark.parametrize("text", [b"<c16", b"<f4", b"<U1", b"|S9", b"|V7", b"e", b"D", b"|S", b"|S0", b"i"])
def test_text_that_means_items_of_another_size(text):
    a = sharedmem.ones(10)
    with pytest.raises(ValueError, match="items of 8 bytes"):
        _load(forged(a, dtype=text))


@pytest.mark.parametrize("given", ["c16", "f4", [("a", "f8"), ("b", "i1")], "V7"], ids=str)
def test_a_dtype_with_items_of_another_size(given):
    a = sharedmem.ones(10)
    with pytest.raises(ValueError, match="items of 8 bytes"):
        _load(forged(a, dtype=b""), np.dtype(given))


@pytest.mark.parametrize(
    "given", [None, 5, "f8", float, np.dtype(("f8", (1,))), np.dtype("V0")], ids=lambda given: repr(given)
)
def test_dtypes_that_an_array_cannot_have(given):
    a = sharedmem.ones(10)
    with pytest.raises(ValueError):
        _load(forged(a, dtype=b""), given)


@pytest.mark.parametrize(
    "text",
    [
        b"<f8,<f8",
        b"<2f8",
        b"<(2)f8",
        b"<M8[",
        b"|V99999999999",
        b"=f8",
        b"T",
        b"<T",
        b"\xe9",
        b"<" + b"9" * 5000,
    ],
    ids=lambda text: text[:20].decode("latin1"),
)
def test_text_that_means_nothing(text):
    a = sharedmem.ones(10)
    with pytest.raises(ValueError):
        _load(forged(a, dtype=text))


@pytest.mark.parametrize("cls", [np.ndarray, int, "SharedArray", len, np.recarray], ids=str)
def test_a_class_that_is_not_a_shared_array(cls):
    a = sharedmem.ones(10)
    with pytest.raises(ValueError, match="not a subclass"):
        _load(handle_of(a), None, cls)


def test_arrays_outside_of_their_block():
    a = sharedmem.ones(512, "u1")
    inside = forged(a, offset=511, axes=[1])
    assert _load(inside).tolist() == [1]
    for numbers in (
        {"axes": [513]},
        {"offset": 1},
        {"offset": 512, "axes": [1]},
        {"offset": 1 << 40},
        {"offset": (1 << 64) - 1, "axes": [1]},
        {"axes": [1 << 40]},
        {"axes": [(1 << 63) - 1]},
        {"ndim": 2, "axes": [1 << 32, 1 << 32]},
        {"ndim": 64, "axes": [2] * 64},
    ):
        with pytest.raises(ValueError):
            _load(forged(a, **numbers))
    backwards = sharedmem.ones(512, "u1")[::-1]
    assert _load(forged(backwards)).shape == (512,)
    for numbers in ({"offset": 510}, {"axes": [513, 1]}, {"axes": [512, 3]}):
        with pytest.raises(ValueError):
            _load(forged(backwards, **numbers))


def test_blocks_that_are_not_the_arrays():
    a, b = sharedmem.ones(1000), sharedmem.ones(1000)
    block, generation = (Forgery(handle_of(a)).numbers[name] for name in ("block", "generation"))
    for numbers in (
        {"generation": generation + 1},
        {"generation": (1 << 48) - 1},
        {"block": (1 << 32) - 1},
        {"block": Forgery(handle_of(b)).numbers["block"], "generation": generation + 2},
        {"block": block + 1000},
    ):
        with pytest.raises((ValueError, OSError)):
            _load(forged(a, **numbers))
    assert (a == 1).all()
    sharedmem.arena.check()


def test_a_forged_lease_takes_nothing():
    a = sharedmem.full(1000, 3.0)
    data = bytes(ForkingPickler.dumps(a))
    handle = next(value for _, value, _ in pickletools.genops(data) if isinstance(value, bytes))
    del a
    settle()
    leases = sharedmem.stats()["leases"]
    assert Forgery(handle).fixed[1] & LEASE
    for name, change in itertools.product(("lease", "nonce", "block", "generation"), (1, 7, 1 << 20)):
        forgery = Forgery(handle)
        forgery.numbers[name] += change
        if name in ("lease", "nonce"):
            assert (_load(forgery.encode()) == 3).all()  # the message has the array, and keeps it
        else:
            with pytest.raises(StaleHandleError):
                _load(forgery.encode())
    assert sharedmem.stats()["leases"] == leases
    assert (pickle.loads(data) == 3).all()
    assert sharedmem.stats()["leases"] == leases - 1


WILD = [0, 1, 2, 3, 7, 8, 63, 64, 100, 255, 256, 4095, 4096, (1 << 21) - 1, 1 << 21, 1 << 31, (1 << 32) - 1]
WILD += [1 << 32, 1 << 47, (1 << 48) - 1, 1 << 48, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]

TEXTS = [
    b"d",
    b"O",
    b"?",
    b"V",
    b"S",
    b"\xe9",
    b"|O",
    b"<f8",
    b">f8",
    b"|O8",
    b"<U2",
    b"|S8",
    b"|V8",
    b"<c16",
]
GIVEN = [None, None, "O", "f8", [("a", "f8"), ("b", "O")], ("f8", 2), "V8", 5]


def alter(forgery, rng):
    what = rng.randrange(6)
    if what == 0:
        forgery.numbers[rng.choice(list(forgery.numbers))] = rng.choice(WILD)
    elif what == 1:
        lease_and_kind = forgery.fixed[1] & (LEASE | MEMFD)
        forgery.fixed[1] = rng.randrange(8) | lease_and_kind
    elif what == 2 and forgery.axes:
        forgery.axes[rng.randrange(len(forgery.axes))] = rng.choice(WILD)
    elif what == 3:
        forgery.dtype = rng.choice(TEXTS)
    elif what == 4:
        ndim = forgery.numbers["ndim"] = rng.choice((1, 2, 31, 32, 33, 63, 64, 65))
        forgery.axes = [rng.choice((0, 1, 1, 1, 2, 1 << 40)) for _ in range(rng.choice((ndim, 2 * ndim)))]
    else:
        forgery.fixed[rng.randrange(26)] ^= 1 << rng.randrange(8)


def reach(a):
    """First byte of an array, and the first one behind it."""
    low = high = address(a)
    for length, stride in zip(a.shape, a.strides, strict=True):
        low += min(0, (length - 1) * stride)
        high += max(0, (length - 1) * stride)
    return low, high + a.itemsize


@pytest.mark.parametrize("seed", range(4))
def test_whatever_loads_lies_in_its_block(seed):
    rng = random.Random(seed)
    shapes = [(10, "f8"), ((3, 4), "i2"), ((2, 3, 4), "u1"), ((), "f8"), (1 << 19, "f8"), (4, "S8")]
    whole = [sharedmem.ones(shape, dtype) for shape, dtype in shapes]
    arrays = [*whole, whole[1][::-1, ::2], whole[2].transpose(2, 0, 1), whole[4][::1000]]
    given = [None if dtype is None else dtype if dtype == 5 else np.dtype(dtype) for dtype in GIVEN]
    # A block may be larger than requested, because of its size class.
    seen = [*whole, *map(sharedmem.readonly, whole)]
    blocks = [(start, end + max(64, (end - start) // 4)) for start, end in map(reach, seen)]
    numbers = {Forgery(handle_of(a)).numbers["block"] for a in whole}
    loaded = 0
    for _ in range(4000):
        forgery = Forgery(handle_of(rng.choice(arrays)))
        for _ in range(rng.choice((1, 1, 2, 3))):
            alter(forgery, rng)
        try:
            found = _load(forgery.encode(), rng.choice(given))
        except (ValueError, OSError, MemoryError):
            continue
        loaded += 1
        assert not found.dtype.hasobject
        if found.size:
            low, high = reach(found)
            if forgery.numbers["block"] in numbers:
                assert any(start <= low and high <= end for start, end in blocks)
            else:  # of an array of another test
                assert found.__reduce_ex__(4)[0] is _load
            found[(0,) * found.ndim].tolist()
    assert loaded > 100
    sharedmem.arena.check()
    assert all((a == 1).all() for a in whole if a.dtype.kind in "fiu")


# -- what a pickle may say by a handle


def strided(a, shape, strides):
    return np.lib.stride_tricks.as_strided(a, shape, strides, subok=True)


def test_arrays_that_reach_beyond_their_block_are_pickled_with_their_data():
    arrays = [sharedmem.full(4096, n, "u1") for n in range(8)]
    first, last = (sorted(arrays, key=address)[i] for i in (0, -1))
    for beyond in (
        strided(first, (4097,), (1,)),
        strided(first[1:], (4096,), (1,)),
        strided(first, (2, 4096), (4096, 1)),
        strided(first[4095:], (1024,), (8,)),
        strided(last, (4097,), (-1,)),
        strided(last, (2, 4096), (-1, 1)),
    ):
        data = pickle.dumps(beyond)
        assert len(data) > beyond.nbytes
        assert (pickle.loads(data) == np.array(beyond)).all()
    within = strided(last[4095:], (4096,), (-1,))
    assert len(pickle.dumps(within)) < 200
    assert (pickle.loads(pickle.dumps(within)) == within).all()


@pytest.mark.parametrize("length", [10, 1 << 18])
def test_an_array_that_was_sent_read_only_stays_so(length):
    a = sharedmem.ones(length)
    view = a[:]
    view.flags.writeable = False
    got = pickle.loads(pickle.dumps(view))
    for target in (got, got[1:], got.reshape(2, -1), np.asarray(got), got.view(np.ndarray)):
        with pytest.raises(ValueError):
            target.flags.writeable = True
        with pytest.raises(ValueError):
            target.setflags(write=True)
        assert not target.flags.writeable
    with pytest.raises(ValueError, match="sent read-only"):
        got.setflags(True)
    got.setflags(write=False)
    assert (a == 1).all()
