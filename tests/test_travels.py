"""Rows of the page "What travels how" on arrays in files, protected ones, and those that NumPy made."""

import pickle

import numpy as np
import pytest
from support import dumps

import sharedmem
from sharedmem import is_shared

COUNT = 100_000


def carried():
    return sharedmem.stats()["transport"]["messages"]


@pytest.fixture
def mapped(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(COUNT))
    return sharedmem.load(tmp_path / "a.npy", mmap_mode="r+")


def test_an_array_in_a_file_is_the_same_file_where_it_arrives(mapped):
    with sharedmem.transport():
        before = carried()
        message = dumps([mapped[::2]])
        assert carried() == before
    assert len(message) < 1000
    got = pickle.loads(message)[0]
    assert type(got) is type(mapped)
    got[:] = 3
    assert (mapped[::2] == 3).all()
    assert (mapped[1::2] == 0).all()


def test_a_plain_view_of_an_array_in_a_file_travels_as_a_private_array(mapped):
    plain = np.asarray(mapped)
    assert dumps([plain]) == dumps([plain.copy()])
    with sharedmem.transport():
        before = carried()
        got = pickle.loads(dumps([plain]))[0]
        assert carried() == before + 1
    assert type(got) is np.ndarray
    assert got.flags.owndata
    got[:] = 3
    assert (mapped == 0).all()


@pytest.mark.parametrize("kind", [lambda a: a, np.asarray], ids=["SharedArray", "ndarray"])
def test_a_protected_array_arrives_protected(kind):
    a = sharedmem.zeros(COUNT)
    message = dumps([kind(sharedmem.readonly(a))])
    assert len(message) < 1000
    got = pickle.loads(message)[0]
    assert type(got) is type(kind(a))
    a[:] = 3
    assert (got == 3).all()
    with pytest.raises(ValueError, match="WRITEABLE"):
        got.flags.writeable = True


def test_what_numpy_made_in_shared_memory_goes_by_handle():
    with sharedmem.allocator():
        a = np.ones(COUNT)
    with sharedmem.transport():
        before = carried()
        message = dumps({"a": a})
        assert carried() == before
    got = pickle.loads(message)["a"]
    assert type(got) is np.ndarray
    assert is_shared(got)
    got[:] = 3
    assert (a == 3).all()
