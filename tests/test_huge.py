"""Large arrays: half a gigabyte everywhere, more than 2**32 elements where there is the memory."""

import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import workers
from support import KINDS, Remote, check_python, given_back, memory, needs_64_bit, needs_memory, settle

import sharedmem

GIBI = 2**30


def resident():
    """Bytes of shared memory that this process has touched."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[2]) * 4096


@needs_64_bit
def test_the_big_array():
    """2**26 uint64, which the first release of this package could not make everywhere."""
    a = sharedmem.ones(2**26, np.uint64)
    assert int(a.sum()) == 2**26
    with Remote("spawn") as remote:
        assert remote.call(workers.total, a) == 2**26
        remote.call(workers.fill, a[2**25 :], 3)
    assert int(a.sum()) == 2**25 * 4


def test_big_memory_is_used_again():
    for value in range(3):
        a = sharedmem.empty(2**27, "u1")
        a[::4096] = value
        assert a[2**27 - 4096] == value
        del a
    settle()
    before = sharedmem.stats()["mapped_bytes"]
    a = sharedmem.empty(2**27, "u1")
    a[::4096] = 1
    assert sharedmem.stats()["mapped_bytes"] <= before + 2**26
    del a
    freed = sharedmem.cleanup()
    assert freed >= given_back(2**27)
    assert sharedmem.stats()["mapped_bytes"] <= before + 2**26 - given_back(freed)


@pytest.mark.parametrize("kind", KINDS)
def test_handing_over_copies_nothing(kind):
    a = sharedmem.zeros(2**28, "u1")
    with Remote(kind) as remote:
        before = sharedmem.stats()["mapped_bytes"]
        theirs = remote.call(workers.resident_bytes)
        remote.call(workers.hold, "a", a)
        remote.call(workers.store_held, "a", 2**27, 5)
        assert a[2**27] == 5
        assert remote.call(workers.resident_bytes) < theirs + 2**26
        assert sharedmem.stats()["mapped_bytes"] < before + 2**26


@needs_64_bit
def test_pickling_touches_no_data():
    a = sharedmem.empty(2**30, "u1", populate=False)
    settle()
    before = sharedmem.stats()["mapped_bytes"]
    mine = resident()
    for _ in range(10):
        b = pickle.loads(pickle.dumps(a))
        c = ForkingPickler.loads(ForkingPickler.dumps(a[::2]))
    assert b.size == 2 * c.size
    assert sharedmem.stats()["mapped_bytes"] < before + 2**24
    assert resident() < mine + 2**24


@needs_64_bit
def test_dropping_gives_the_memory_back():
    before = sharedmem.stats()["mapped_bytes"]
    a = sharedmem.ones(2**29, "u1")
    assert sharedmem.stats()["mapped_bytes"] >= 2**29
    del a
    settle()
    sharedmem.cleanup()
    assert sharedmem.stats()["mapped_bytes"] <= before + 2**25


@pytest.mark.slow
def test_more_than_2_to_the_32_elements():
    needs_memory(5 * GIBI)
    size = 2**32 + 2**20 + 3
    a = sharedmem.zeros(size, "i1", populate=False)
    assert a.nbytes == size
    for i in (0, 2**31, 2**32 - 1, 2**32, size - 1):
        a[i] = i % 100
    assert len(pickle.dumps(a)) <= 150
    with Remote("spawn") as remote:
        for i in (0, 2**31, 2**32 - 1, 2**32, size - 1):
            assert remote.call(workers.item, a, i) == i % 100
        remote.call(workers.store, a[2**32 :], 5, 42)
        remote.call(workers.store, a[::-1], 7, 43)
        remote.call(workers.store, a[:: 2**20], -1, 44)
    assert (a[2**32 + 5], a[size - 8]) == (42, 43)
    assert a[(size - 1) // 2**20 * 2**20] == 44


@pytest.mark.slow
def test_several_gigabytes_written_by_several_processes():
    needs_memory(GIBI)
    nbytes = min(3 * GIBI, memory("MemAvailable") // 2) // 2**22 * 2**22
    a = sharedmem.zeros((4, nbytes // 4), "u1")
    with Remote() as first, Remote("spawn") as second:
        for remote, row in ((first, 0), (second, 1), (first, 2), (second, 3)):
            remote.conn.send((workers.fill, (a[row], row + 1)))
        for remote in (first, second, first, second):
            remote.result()
        assert first.call(workers.total, a[3, ::4096]) == 4 * len(a[3, ::4096])
    for row in range(4):
        assert (a[row] == row + 1).all()


@pytest.mark.slow
def test_a_killed_process_gives_gigabytes_back():
    needs_memory(2 * GIBI)
    before = sharedmem.stats()["mapped_bytes"]
    with Remote("spawn") as remote:
        remote.call(workers.hold_full, "a", GIBI, 1, "u1")
        assert sharedmem.stats()["mapped_bytes"] >= GIBI
        remote.kill()
    sharedmem.collect()
    sharedmem.cleanup()
    assert sharedmem.stats()["mapped_bytes"] <= before + 2**26


def test_a_core_dump_costs_what_was_touched(tmp_path):
    """A sparse segment must not be filled by the kernel when a user's program crashes."""
    code = """
    import faulthandler, os, resource, sys
    os.chdir(sys.argv[1])
    import sharedmem
    a = sharedmem.empty(2**30, "u1", populate=False)
    a[0] = 1
    flags = []
    with open("/proc/self/smaps") as file:
        inside = False
        for line in file:
            if "-" in line.split(" ")[0]:
                first, last = (int(x, 16) for x in line.split(" ")[0].split("-"))
                inside = first <= a.ctypes.data < last
            elif inside and line.startswith("VmFlags"):
                flags = line.split()
    print("dd" in flags)
    """
    assert check_python(code, tmp_path) == "True"
