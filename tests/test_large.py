"""Arrays of every size, from one byte to beyond what 32 bits count: sent, and verified elsewhere."""

import sys

import build_tools
import numpy as np
import pytest
import support

import sharedmem
import shmarray

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SMALL = [
    1,
    2,
    63,
    64,
    65,
    4 * KIB - 1,
    64 * KIB + 1,
    MIB - 1,
    MIB,
    2 * MIB - 1,
    2 * MIB,
    2 * MIB + 1,
    64 * MIB + 3,
]
LARGE = [2**31 - 1, 2**31 + 1, 2**32 + 1]

# Marks are this far apart: prime, so that they fall on every residue of a page.
STRIDE = 1_000_003


def places(a):
    """Indices that are looked at: all over the array, and its last element."""
    return np.append(np.arange(0, a.size, STRIDE), a.size - 1)


def mark(a):
    a[places(a)] = places(a) % 251 + 1


def answer(a):
    """Looks at the array and changes both of its ends."""
    right = np.array_equal(a[places(a)], places(a) % 251 + 1)
    a[0] = 7
    a[-1] = 8
    return right, a.shape, a.nbytes


@pytest.fixture(scope="module")
def remote():
    """One process that verifies them all."""
    with support.Remote("spawn") as remote:
        yield remote


def check(a, remote):
    mark(a)
    assert remote.call(answer, a) == (True, a.shape, a.nbytes)
    assert (a[0], a[-1]) == (7 if a.size > 1 else 8, 8)


@pytest.mark.parametrize("nbytes", SMALL)
def test_small_sizes(nbytes, remote):
    check(sharedmem.zeros(nbytes, np.uint8), remote)
    check(shmarray.zeros(nbytes, np.uint8), remote)


@pytest.mark.slow
@support.needs_64_bit
@pytest.mark.parametrize("nbytes", LARGE)
def test_more_elements_than_an_int_counts(nbytes, remote):
    support.needs_memory(nbytes)
    check(sharedmem.empty(nbytes, np.uint8, populate=False), remote)
    sharedmem.cleanup()


@pytest.mark.slow
def test_as_large_as_the_memory(remote):
    nbytes = min(16 * GIB, support.memory("MemAvailable") // 3, sys.maxsize // 8)
    check(sharedmem.empty(nbytes // 8, np.float64, populate=False), remote)
    sharedmem.cleanup()


@pytest.mark.slow
@support.needs_64_bit
def test_views_far_into_a_large_array(remote):
    nbytes = 2**32 + 1
    support.needs_memory(nbytes)
    a = sharedmem.empty(nbytes, np.uint8, populate=False)
    check(a[2**32 - 10 :], remote)
    check(a[: 2**31 : -3], remote)
    check(a[1:].view(np.float64).reshape(2**16, -1)[-1], remote)
    del a
    sharedmem.cleanup()


@pytest.mark.slow
def test_memory_is_given_back():
    nbytes = 256 * MIB
    support.needs_memory(nbytes)
    a = sharedmem.ones(nbytes, np.uint8)
    resident = sharedmem.stats()["mapped_bytes"]
    assert resident >= nbytes
    del a
    sharedmem.cleanup()
    assert resident - sharedmem.stats()["mapped_bytes"] >= nbytes


def test_too_large_is_an_error_and_nothing_else():
    before = sharedmem.stats()
    most = max(sys.maxsize, 2**41)  # 32 bit has room for its longest array
    for size in (most // 2, most - 2**24):
        with pytest.raises(MemoryError):
            sharedmem.empty(size, np.uint8)
        with pytest.raises(MemoryError):
            shmarray.create(size, np.uint8)
    with pytest.raises(ValueError, match="maximum"):
        sharedmem.empty(sys.maxsize // 2, np.float64)
    after = sharedmem.stats()
    assert after["live_bytes"] == before["live_bytes"]
    assert sharedmem.ones(10).sum() == 10


def test_the_table_of_the_documentation():
    """Its program runs; here with small sizes only."""
    program = build_tools.ROOT / "doc" / "large_arrays.py"
    if not program.exists():
        pytest.skip("the documentation's source is not here")
    assert "1,048,576" in build_tools.run(sys.executable, program, "--most", "1MiB")
