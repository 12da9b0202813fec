"""sharedmem.allocator: which arrays of NumPy's are in shared memory, how they grow, and lack of memory."""

import contextlib
import gc
import io
import itertools
import pickle
import sys
import tracemalloc

import numpy as np
import pytest
import support
import workers

import sharedmem
from sharedmem import is_shared

#: More bytes than any machine has.
TOO_MUCH = 1 << 44

#: On 32 bits NumPy requests at most 2 GiB, which may succeed.
needs_64_bits = pytest.mark.skipif(sys.maxsize < TOO_MUCH, reason="NumPy never requests so much on 32 bits")

M = np.random.default_rng(0).random((50, 50)) + np.eye(50)


A, B = np.arange(10000.0), np.linspace(0, 1, 10000)
M = np.random.default_rng(0).random((50, 50)) + np.eye(50)


def saved(**how):
    file = io.BytesIO()
    np.savez(file, a=A) if how else np.save(file, A)
    return io.BytesIO(file.getvalue())


NPY, NPZ = saved(), saved(npz=True)


def from_start(file):
    file.seek(0)
    return file


# What each row of the table in doc/allocator.rst makes.
SHARED = {
    "np.empty": lambda: np.empty(1000),
    "np.empty of nothing": lambda: np.empty(0),
    "np.ones": lambda: np.ones(1000),
    "np.zeros_like": lambda: np.zeros_like(A),
    "np.full": lambda: np.full((10, 10), 7),
    "np.arange": lambda: np.arange(1000),
    "np.array of a list": lambda: np.array([1.0, 2.0]),
    "np.array of bytes": lambda: np.array([b"a", b"bc"]),
    "np.load": lambda: np.load(from_start(NPY)),
    "np.load of npz": lambda: np.load(from_start(NPZ))["a"],
    "np.fromfile": lambda: np.fromfile(sys.executable, np.uint8, count=1000),
    "np.loadtxt": lambda: np.loadtxt(["1 2", "3 4"]),
    "np.fromiter": lambda: np.fromiter((i for i in range(5000)), float),
    "a copy": lambda: A.copy(),
    "astype": lambda: A.astype(np.float32),
    "arithmetic": lambda: A + B,
    "comparison": lambda: A > B,
    "a ufunc": lambda: np.sqrt(A),
    "a reduction": lambda: M.sum(axis=0),
    "fancy indexing": lambda: A[[1, 5, 3]],
    "a mask": lambda: A[A > 5],
    "sort": lambda: np.sort(B),
    "argsort": lambda: np.argsort(B),
    "unique": lambda: np.unique(A),
    "where": lambda: np.where(A > 5, A, B),
    "concatenate": lambda: np.concatenate([A, B]),
    "matmul": lambda: M @ M,
    "einsum": lambda: np.einsum("ij,jk", M, M),
    "fft": lambda: np.fft.fft(A),
    "linalg.solve": lambda: np.linalg.solve(M, M[0]),
    "random": lambda: np.random.default_rng(1).random(1000),
    "a structured array": lambda: np.empty(10, [("x", float), ("y", "S3")]),
    "a masked array's data": lambda: np.ma.masked_greater(A, 5).copy().data,
}
PRIVATE = {
    "np.zeros": lambda: np.zeros(1000),
    "np.eye": lambda: np.eye(10),
    "np.bincount": lambda: np.bincount([1, 2, 2]),
    "np.histogram": lambda: np.histogram(A)[0],
    "np.array of str": lambda: np.array(["a", "bc"]),
    "np.frombuffer": lambda: np.frombuffer(bytes(80)),
}


@pytest.fixture
def allocator():
    return sharedmem.allocator()


def test_what_is_made_in_shared_memory(allocator):
    for what, make in SHARED.items():
        expected = make()
        with allocator:
            a = make()
        assert is_shared(a), what
        assert type(a) is np.ndarray, what
        if what not in ("np.empty", "a structured array"):
            np.testing.assert_array_equal(a, expected, err_msg=what)


def test_what_is_made_in_private_memory(allocator):
    for what, make in PRIVATE.items():
        with allocator:
            a = make()
        assert not is_shared(a), what
        np.testing.assert_array_equal(a, make(), err_msg=what)


def test_zeros_are_shared_if_requested():
    for what, make in {**SHARED, **PRIVATE}.items():
        with sharedmem.allocator(zeros=True):
            a, b, c = np.zeros(1000), make(), np.zeros(1000)
        assert is_shared(a)
        assert is_shared(c)
        assert is_shared(b) == (what != "np.frombuffer"), what
        assert not a.any()
        assert not c.any()


def test_recycled_memory_is_zeroed():
    with sharedmem.allocator(zeros=True):
        for n in (1, 10, 1000, 300_000, 3_000_000):
            np.full(n, 7, np.uint8)
            assert not np.zeros(n, np.uint8).any()


def test_an_array_of_the_block_is_sent_without_a_copy(allocator, context):
    with allocator:
        a = np.arange(100_000.0)
    s = sharedmem.asshared(a)
    assert np.shares_memory(s, a)
    assert len(support.dumps(s)) < 200
    with support.Remote(context.get_start_method()) as other:
        other.call(workers.fill, s, 5.0)
    assert (a == 5).all()


def test_alignment(allocator):
    with allocator:
        made = [np.empty(n, np.uint8) for n in (1, 3, 17, 100, 5000, 70_000, 3_000_000)]
    assert all(a.ctypes.data % 64 == 0 for a in made)


def test_memory_comes_back():
    def use():
        with sharedmem.allocator():
            kept = [np.ones(n) for n in (1, 100, 10_000, 1_000_000)]
            for a in kept:
                a + 1
        del kept, a
        gc.collect()
        return sharedmem.stats()["live_bytes"]

    before = use()
    for _ in range(5):
        assert use() == before


# -- resize


def test_resize(allocator):
    for n, m in itertools.product((0, 3, 100, 5000, 300_000), repeat=2):
        with allocator:
            a = np.arange(float(n))
        a.resize(m, refcheck=False)
        assert is_shared(a)
        assert len(a) == m
        assert (a[:n] == np.arange(min(n, m))).all()
        assert not a[n:].any()


def test_resize_gives_most_of_a_large_array_back(allocator):
    with allocator:
        a = np.ones(1 << 20)
    used = sharedmem.stats()["live_bytes"]
    a.resize(10, refcheck=False)
    assert sharedmem.stats()["live_bytes"] < used - (1 << 22)


def test_resize_within_the_block_leaves_private_arrays_private(allocator):
    a = np.ones(10)
    with allocator:
        a.resize(10_000, refcheck=False)
        z = np.zeros(5)
        z.resize(10_000, refcheck=False)
    assert not is_shared(a)
    assert not is_shared(z)
    assert a.sum() == 10


@pytest.mark.parametrize("m", [3, 60, 101, 100_000])
def test_resize_leaves_what_others_have(allocator, m):
    with allocator:
        a = np.arange(100.0)
    other = pickle.loads(pickle.dumps(sharedmem.asshared(a)))
    a.resize(m, refcheck=False)
    a.resize(100, refcheck=False)
    a[:] = -1
    assert other.tolist() == list(range(100))


# -- memory refused


@needs_64_bits
def test_no_memory_says_why(allocator):
    with pytest.raises(MemoryError, match="Unable to allocate") as caught, allocator:
        np.empty(TOO_MUCH, np.uint8)
    support.check_memory_message(str(caught.value.__cause__), TOO_MUCH)


@needs_64_bits
def test_a_memory_error_that_was_caught_is_not_the_cause_of_a_later_one(allocator):
    def fail():
        with allocator:
            with contextlib.suppress(MemoryError):
                np.empty(TOO_MUCH, np.uint8)
            with allocator:
                raise MemoryError("mine")

    with pytest.raises(MemoryError, match="mine") as caught:
        fail()
    assert caught.value.__cause__ is None


def test_no_room_in_the_arena():
    said = support.check_python(
        """
        import resource
        import numpy as np
        import sharedmem
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
        kept = []
        try:
            with sharedmem.allocator():
                while True:
                    kept.append(np.ones(1 << 20))
        except MemoryError as error:
            print(error.__cause__)
        print(all(map(sharedmem.is_shared, kept)), kept[0].sum())
        del kept[4:]
        with sharedmem.allocator():
            print(sharedmem.is_shared(np.ones(1 << 20)))
        """,
        SHAREDMEM_ARENA_SIZE="64MiB",
    ).splitlines()
    assert "SHAREDMEM_ARENA_SIZE" in said[0]
    assert said[1:] == ["True 1048576.0", "True"]


def test_an_invalid_setting_raises_on_entering():
    said = support.check_python(
        """
        import sharedmem
        try:
            with sharedmem.allocator():
                print("entered")
        except ValueError as error:
            print(error)
        """,
        SHAREDMEM_ARENA_SIZE="much",
    )
    assert "SHAREDMEM_ARENA_SIZE" in said
    assert "entered" not in said


def test_tracemalloc_counts_it(allocator):
    tracemalloc.start()
    try:
        with allocator:
            a = np.ones(1 << 20)
        assert tracemalloc.get_traced_memory()[0] > 8 << 20
        del a
        assert tracemalloc.get_traced_memory()[0] < 8 << 20
    finally:
        tracemalloc.stop()
