"""A message that is one array: multiprocessing needs no pickler for it."""

import copyreg
import pickle
import pickletools
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
from support import dumps

import sharedmem


def operations(data):
    """What a pickle does, without what only longer messages need."""
    unneeded = {"FRAME", "MEMOIZE"}
    return [(op.name, value) for op, value, _ in pickletools.genops(data) if op.name not in unneeded]


def plainest(data):
    """`operations`, without what handles say: each names its own lease."""
    return [(name, type(value) if isinstance(value, bytes) else value) for name, value in operations(data)]


@pytest.mark.parametrize("part", [np.s_[:], np.s_[3:], np.s_[::-2], np.s_[None, :, None]])
def test_an_array_sent_alone_is_pickled_as_by_a_pickler(part):
    a = sharedmem.ones(1000)[part]
    alone = dumps(a)
    by_pickler = bytes(ForkingPickler.dumps(a, 4))
    assert plainest(alone) == plainest(by_pickler)
    for data in alone, by_pickler:
        assert np.shares_memory(pickle.loads(data), a)
    assert np.shares_memory(pickle._loads(dumps(a)), a)


@pytest.mark.parametrize("part", [np.s_[:], np.s_[3:], np.s_[::-2], np.s_[None, :, None]])
@pytest.mark.parametrize("kind", [sharedmem.SharedArray, np.ndarray])
def test_an_array_that_is_a_message_of_a_queue_arrives_as_from_a_pickle(kind, part):
    q = sharedmem.Queue()
    a = sharedmem.ones(1000).view(kind)[part]
    a.flags.writeable = False
    q.put(a)
    got, want = q.get(), pickle.loads(dumps(a))
    assert type(got) is type(want) is kind
    assert got.flags.writeable == want.flags.writeable
    assert got.__array_interface__ == want.__array_interface__
    assert np.shares_memory(got, a)


def test_an_array_sent_alone_by_what_was_registered_for_it(monkeypatch):
    a = sharedmem.ones(10)
    q = sharedmem.Queue()
    monkeypatch.setitem(ForkingPickler._extra_reducers, sharedmem.SharedArray, lambda a: (len, ("four",)))
    q.put(a)
    assert q.get() == pickle.loads(dumps(a)) == 4
    monkeypatch.undo()
    monkeypatch.setitem(copyreg.dispatch_table, sharedmem.SharedArray, lambda a: (len, ("fives",)))
    q.put(a)
    assert q.get() == pickle.loads(dumps(a)) == 5


def test_a_pickler_of_the_program_is_used():
    class Doubling(ForkingPickler):
        def reducer_override(self, obj):
            return (float, (2.0,)) if isinstance(obj, sharedmem.SharedArray) else NotImplemented

    assert pickle.loads(bytes(Doubling.dumps(sharedmem.ones(10)))) == 2


@pytest.mark.parametrize("dtype", ["f4", "i2,f8", "V300", "M8[ns]", [("name", "U3"), ("at", "f8", 2)]])
def test_every_dtype_is_sent_alone(dtype):
    a, q = sharedmem.zeros((3, 4), dtype), sharedmem.Queue()
    q.put(a)
    for got in pickle.loads(dumps(a)), q.get():
        assert got.dtype == a.dtype
        assert np.shares_memory(got, a)


def test_sent_alone_within_pickle_by_value():
    a = sharedmem.ones(1000)
    with sharedmem.pickle_by_value():
        data = dumps(a)
    got = pickle.loads(data)
    assert type(got) is np.ndarray
    assert not sharedmem.is_shared(got)
