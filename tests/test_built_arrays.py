"""What `get_or_create` makes of what its function returns: where it lies, and what is copied."""

import multiprocessing
import pickle

import numpy as np
import pytest
import support
from naming import own_names  # noqa: F401

import sharedmem


@pytest.mark.parametrize("size", [3, 10_000, 1_000_000])
def test_what_this_library_makes_meanwhile_is_not_copied(size):
    made = []

    def build():
        made.append(sharedmem.full(size, 3.0))
        made.append(made[0][:2])
        return made[0]

    a = sharedmem.get_or_create(f"not copied {size}", build, readonly=False)
    assert np.shares_memory(a, made[0])
    assert a.flags.writeable
    b = sharedmem.get_or_create(f"not copied {size}", build)
    assert len(made) == 2
    assert not b.flags.writeable


def test_a_part_of_an_array_is_named_without_a_copy(tmp_path):
    whole = []

    def build():
        whole.append(sharedmem.zeros((10, 4)))
        return whole[0][2:5]

    a = sharedmem.get_or_create("part", build, readonly=False)
    a[0, 0] = 5
    assert whole[0][2, 0] == 5
    np.save(tmp_path / "x.npy", np.arange(6.0))
    loaded = []
    b = sharedmem.get_or_create(
        "loaded", lambda: loaded.append(sharedmem.load(tmp_path / "x.npy")) or loaded[0], readonly=False
    )
    assert np.shares_memory(b, loaded[0])


@pytest.mark.parametrize(
    "made",
    [
        np.arange(12).reshape(3, 4),
        np.arange(12).reshape(3, 4).T,
        np.arange(12).reshape(3, 4)[::2, ::-1],
        np.ones((0, 3), "i2"),
        np.float64(5),
        [[1, 2], [3, 4]],
        np.array([(1, 2.0)], [("a", ">i2"), ("b", "f8")]),
        np.array(["a", "bcd"]),
    ],
    ids=str,
)
def test_anything_that_makes_an_array_is_copied(made):
    a = sharedmem.get_or_create("copied", lambda: made)
    assert sharedmem.is_shared(a)
    assert (a == np.asarray(made)).all()
    assert (a.dtype, a.shape) == (np.asarray(made).dtype, np.asarray(made).shape)
    assert a.flags.f_contiguous or a.flags.c_contiguous
    b = sharedmem.attach("copied", readonly=True)
    assert support.address(a) == support.address(b)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (None, "the function that builds 'objects' returned None, not an array"),
        (
            {"a": 1},
            "that builds 'objects' returned an object of type dict, not.*sharedmem.share",
        ),
        (object(), "returned an object of type object, not an array"),
        (np.array([None]), "the dtype is object: its items are pointers"),
    ],
    ids=["None", "dict", "object", "ndarray"],
)
def test_results_of_build_that_cannot_be_arrays_are_rejected(made, said):
    with pytest.raises(TypeError, match=said):
        sharedmem.get_or_create("objects", lambda: made)
    assert sharedmem.get_or_create("objects", lambda: 1) == 1


def test_what_others_have_read_only_is_not_bound_writable():
    first = sharedmem.get_or_create("first", lambda: np.ones(1000))
    second = sharedmem.get_or_create("second", lambda: first, readonly=False)
    second[:] = 2
    assert (first == 1).all()


def test_processes_forked_by_a_builder_allocate_where_they_always_do():
    def build():
        with multiprocessing.get_context("fork").Pool(1) as pool:
            return pool.apply(where_new_arrays_lie) * np.ones(3)

    assert sharedmem.get_or_create("pool", build)[0] == 1


def where_new_arrays_lie():
    """1 if they lie in this process's own arena, as their handles say."""
    uuid = int(sharedmem.stats()["arena"][:16], 16).to_bytes(8, "little")
    return int(all(uuid in pickle.dumps(sharedmem.zeros(n)) for n in (3, 100_000)))
