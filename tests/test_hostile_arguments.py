"""Arguments that are not passed on purpose: no name, file or memory is damaged by them."""

import os
import pickle

import numpy as np
import pytest
import support
from naming import own_names  # noqa: F401

import sharedmem


class Unhashable(str):
    def __hash__(self):
        raise ZeroDivisionError


def test_a_name_that_cannot_be_hashed_is_not_built_for_ever():
    with pytest.raises(ZeroDivisionError):
        sharedmem.get_or_create(Unhashable("of no hash"), lambda: np.ones(3))
    assert sharedmem.get_or_create("of no hash", lambda: np.ones(3), timeout=0).sum() == 3


@pytest.mark.parametrize(
    ("timeout", "error"),
    [(10**400, ValueError), (float("nan"), ValueError), (-1, ValueError), ("1", TypeError)],
)
def test_timeouts_that_are_not_numbers_of_seconds(timeout, error):
    for call in (sharedmem.attach, lambda name, timeout: sharedmem.get_or_create(name, int, timeout=timeout)):
        with pytest.raises(error):
            call("of no time", timeout=timeout)
    assert sharedmem.names() == []


def test_dtypes_that_no_name_can_have():
    fields = np.dtype({"names": ["b", "a"], "formats": ["i4", "i4"], "offsets": [8, 0], "itemsize": 20})
    with pytest.raises(TypeError, match="cannot be described"):
        sharedmem.create("of no dtype", 2, fields)
    with pytest.raises(ValueError, match=r"\|V0 have no bytes"):
        sharedmem.create("of no dtype", 2, "V0")
    assert sharedmem.names() == []


class MakesArrays:
    """Its state is created when it is needed, and no other object has it."""

    def __getstate__(self):
        return {"x": sharedmem.full(1000, 3.0), "y": sharedmem.asshared(np.arange(6.0))[::2]}


@pytest.mark.parametrize(
    "send",
    [
        sharedmem.share,
        lambda obj: sharedmem.share([obj])[0],
        lambda obj: sharedmem.loads(sharedmem.dumps(obj)),
    ],
)
def test_shared_arrays_that_an_object_makes_to_be_pickled(send):
    got = send(MakesArrays())
    assert got.x.sum() == 3000
    assert got.y.tolist() == [0, 2, 4]


@pytest.mark.parametrize("dtype", [">f4", "<f4", ">M8[us]", [("a", ">i2"), ("b", "<i2")], "S3"])
@pytest.mark.parametrize("shape", [0, (3, 0), (2,)])
def test_arrays_keep_their_byte_order_without_elements_too(dtype, shape):
    a = np.zeros(shape, dtype)
    for got in (sharedmem.share(a), sharedmem.loads(sharedmem.dumps(a))):
        assert (got.dtype, got.shape, type(got)) == (a.dtype, a.shape, np.ndarray)


@pytest.mark.parametrize("shape", [(1,) * 65, (2**62, 2**62, 0), (2**62,), (-1,), "3"])
def test_a_new_file_of_no_possible_shape_leaves_the_old_one(tmp_path, shape):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(10))
    before = path.read_bytes()
    with pytest.raises((TypeError, ValueError)):
        sharedmem.open_memmap(path, "w+", "i4", shape)
    with pytest.raises((TypeError, ValueError)):
        sharedmem.memmap(path, "i4", "w+", shape=shape)
    with pytest.raises(ValueError, match="larger than any file"):
        sharedmem.memmap(path, "i4", "w+", offset=2**70, shape=3)
    assert path.read_bytes() == before


@pytest.mark.parametrize("fortran_order", [False, True])
def test_a_new_file_of_a_dtype_that_is_an_array(tmp_path, fortran_order):
    """As NumPy makes of it: the dtype of the elements, and more axes. The file says the same."""
    path = tmp_path / "a.npy"
    made = sharedmem.open_memmap(path, "w+", "(2,3)i4", (4,), fortran_order)
    made[:] = np.arange(24).reshape(4, 2, 3)
    for got in (np.load(path), sharedmem.open_memmap(path), pickle.loads(pickle.dumps(made))):
        assert (got.shape, got.dtype) == ((4, 2, 3), np.dtype("i4"))
        assert (got == np.arange(24).reshape(4, 2, 3)).all()


def test_a_path_that_is_empty():
    for mode in ("r", "r+", "w+"):
        with pytest.raises(FileNotFoundError):
            sharedmem.open_memmap("", mode, "i4", 3)


def arena_of(a):
    """What its handle has of the arena that it lies in."""
    return a.__reduce_ex__(4)[1][0][2:18]


@pytest.mark.parametrize("fails", [False, True])
def test_arrays_after_a_build_lie_where_they_lay_before(fails):
    """Those within lie where named arrays lie, which is another arena."""
    within = []

    def build():
        within.append(arena_of(sharedmem.ones(1000)))
        return sharedmem.ones(1000) if not fails else 1 / 0

    before = arena_of(sharedmem.ones(1000))
    try:
        within.append(arena_of(sharedmem.get_or_create("of a place", build)))
    except ZeroDivisionError:
        assert fails
    assert arena_of(sharedmem.ones(1000)) == before
    assert within == [within[0]] * (1 if fails else 2)
    assert within[0] != before


def test_a_forked_child_that_returns_from_its_parents_build_gets_an_error():
    parent = os.getpid()

    def build():
        if (pid := os.fork()) != 0:
            ended.append(support.reap(pid))
        return np.ones(3)

    ended = []

    try:
        assert sharedmem.get_or_create("of a fork", build).sum() == 3
    except RuntimeError as error:
        os._exit(0 if f"by which process {parent} builds" in str(error) and "os._exit" in str(error) else 1)
    finally:
        if os.getpid() != parent:
            os._exit(2)
    assert ended == [0]
