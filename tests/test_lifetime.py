"""Memory lives as long as any object that can reach it, in whatever order the objects are dropped."""

import copy
import gc
import pickle
import random
import weakref

import numpy as np
import pytest
from samples import VIEWS, sample
from support import address, same, settle

import sharedmem
from sharedmem import StaleHandleError


@pytest.fixture(autouse=True)
def nothing_is_kept():
    settle()
    before = sharedmem.stats()
    yield
    settle()
    after = sharedmem.stats()
    assert (after["live_blocks"], after["live_bytes"]) == (before["live_blocks"], before["live_bytes"])


def live():
    settle()
    return sharedmem.stats()["live_blocks"]


def test_counts():
    before = sharedmem.stats()
    a = sharedmem.ones(100_000)
    b = sharedmem.ones(10)
    during = sharedmem.stats()
    assert during["live_blocks"] == before["live_blocks"] + 2
    assert during["live_bytes"] >= before["live_bytes"] + a.nbytes + b.nbytes
    del a
    assert sharedmem.stats()["live_blocks"] == before["live_blocks"] + 1
    del b
    assert sharedmem.stats()["live_blocks"] == before["live_blocks"]


KEEPERS = {
    **{name: view for name, view in VIEWS.items() if name != "empty slice"},
    "view of a view": lambda a: a[1:][:, 2:][::-1].T,
    "asarray": np.asarray,
    "plain view": lambda a: a.view(np.ndarray)[1:],
    "memoryview": memoryview,
    "slice of a memoryview": lambda a: memoryview(a)[1:],
    "frombuffer": lambda a: np.frombuffer(a, "f8"),
    "array of a memoryview": lambda a: np.asarray(memoryview(a)),
    "dlpack": np.from_dlpack,
    "pickled": lambda a: pickle.loads(pickle.dumps(a[2:])),
    "asshared of a plain view": lambda a: sharedmem.asshared(np.asarray(a)[1:]),
    "as_strided": lambda a: np.lib.stride_tricks.as_strided(a, (3,), (8,)),
    "iterator": lambda a: a.flat,
    "nditer": np.nditer,
    "broadcast": lambda a: np.broadcast_arrays(a, a)[1],
    "ctypes pointer": lambda a: a.ctypes,
    "row from iteration": lambda a: list(a)[3],
    "record": lambda a: a.view([("x", "f8"), ("y", "f8")])["y"],
    "masked": lambda a: np.ma.masked_array(a),
    "bound method": lambda a: a.sum,
    "array in a list": lambda a: [a],
    "object array": lambda a: np.array([a, None], object),
}


@pytest.mark.parametrize("name", KEEPERS)
def test_whatever_reaches_the_memory_keeps_it(name):
    before = live()
    a = sharedmem.asshared(sample((6, 12)))
    data = pickle.dumps(a)
    keeper = KEEPERS[name](a)
    del a
    assert live() == before + 1
    dirty = [sharedmem.full((6, 12), -1.0) for _ in range(10)]
    again = pickle.loads(data)
    assert same(again, sample((6, 12)))
    del again, dirty
    assert live() == before + 1
    del keeper
    assert live() == before
    with pytest.raises(StaleHandleError):
        pickle.loads(data)


def test_any_order_of_deletion():
    generator = random.Random(3)
    before = live()
    for _ in range(200):
        a = sharedmem.asshared(sample((6, 12)))
        things = [a, a[1:], a.T, np.asarray(a), memoryview(a), pickle.loads(pickle.dumps(a)), a[1:][1:]]
        del a
        generator.shuffle(things)
        while things:
            thing = things.pop()
            assert np.asarray(thing).sum() > 0
            del thing
    assert live() == before


def test_deep_chains_of_views():
    a = sharedmem.ones(5000)
    for _ in range(4000):
        a = a[1:]
    assert a.sum() == 1000
    b = pickle.loads(pickle.dumps(a))
    del a
    for _ in range(500):
        b = pickle.loads(pickle.dumps(b[1:]))
    assert b.sum() == 500


def test_functions_that_return_parts():
    def part():
        return sharedmem.full(1000, 5.0)[10:20]

    def shaped():
        return sharedmem.full(1000, 6.0).reshape(10, 100)

    def buffer():
        return memoryview(sharedmem.full(1000, 7.0))

    first, second, third = part(), shaped(), buffer()
    dirty = [sharedmem.zeros(1000) for _ in range(20)]
    assert (first == 5).all()
    assert (second == 6).all()
    assert np.asarray(third).sum() == 7000
    first[:] = 1
    second[:] = 2
    third[0] = 3.0
    assert not any(a.any() for a in dirty)


def test_cycles_are_collected():
    class Node:
        pass

    before = live()
    for _ in range(10):
        node = Node()
        node.array = sharedmem.ones(100)
        node.view = node.array[1:]
        node.itself = node
    del node
    assert live() == before


def test_arrays_in_closures_generators_and_exceptions():
    before = live()

    def generate():
        a = sharedmem.ones(100)
        yield a[1:]
        yield a[2:]

    generator = generate()
    view = next(generator)
    with pytest.raises(ZeroDivisionError):
        fail(sharedmem.ones(10))
    assert view.sum() == 99
    del generator, view
    assert live() == before


def fail(a):
    return a.sum() / 0 if a is None else 1 / 0


def test_weak_references_do_not_keep():
    before = live()
    a = sharedmem.ones(10)
    reference = weakref.ref(a)
    view = a[1:]
    assert reference() is a
    del a
    assert reference() is not None
    del view
    gc.collect()
    assert reference() is None
    assert live() == before


def test_copies_do_not_keep_the_original():
    a = sharedmem.ones(1000)
    data = pickle.dumps(a)
    kept = [a.copy(), copy.copy(a), copy.deepcopy(a), a + 1, a[[1, 2]], a.astype("f4"), np.sort(a)]
    del a
    settle()
    with pytest.raises(StaleHandleError):
        pickle.loads(data)
    assert kept[0].sum() == 1000


def test_addresses_are_used_again():
    seen = set()
    for _ in range(1000):
        seen.add(address(sharedmem.empty(1000)))
    assert len(seen) < 100


@pytest.mark.parametrize("nbytes", [8, 100, 5000, 100_000, 2**20, 3 * 2**20, 40 * 2**20])
def test_memory_does_not_grow(nbytes):
    for _ in range(3):
        a = sharedmem.ones(nbytes, "u1")
    del a
    before = sharedmem.stats()["mapped_bytes"]
    for i in range(60):
        a = sharedmem.full(nbytes, i, "u1")
        pickle.dumps(a)
    del a
    assert sharedmem.stats()["mapped_bytes"] <= before + 3 * nbytes + 2**22


def test_sizes_that_vary_do_not_fragment_without_end():
    sharedmem.cleanup()
    before = sharedmem.stats()["mapped_bytes"]
    generator = random.Random(5)
    kept = []
    total = 0
    for i in range(4000):
        nbytes = int(10 ** generator.uniform(0, 6))
        kept.append(sharedmem.full(nbytes, i % 256, "u1"))
        total += nbytes
        while total > 40_000_000:
            total -= kept.pop(generator.randrange(len(kept))).nbytes
    assert all((a == a[0]).all() for a in kept)
    assert sharedmem.stats()["mapped_bytes"] < before + 400_000_000


def test_drop_in_a_finalizer():
    before = live()
    finalized = []

    class Owner:
        def __init__(self):
            self.array = sharedmem.ones(1000)

        def __del__(self):
            finalized.append(self.array.sum())
            self.array = sharedmem.zeros(10)

    owner = Owner()
    owner.cycle = owner
    del owner
    assert live() == before
    assert finalized == [1000]


def test_a_callback_that_allocates_while_memory_is_freed():
    before = live()
    made = []
    a = sharedmem.ones(1000)
    weakref.finalize(a, lambda: made.append(sharedmem.full(1000, 2.0)))
    del a
    settle()
    assert made[0].sum() == 2000
    made.clear()
    assert live() == before
