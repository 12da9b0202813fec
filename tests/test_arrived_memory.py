"""Private memory in which copies arrive is kept for the next ones, within bounds."""

import pickle
import sys
import threading
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import support

import sharedmem
from sharedmem._transfers.blocks import kept_bytes

MIB = 1 << 20


@pytest.fixture(autouse=True)
def on():
    """Transport is on, and nothing is kept before and after a test."""
    sharedmem.cleanup()
    with sharedmem.transport():
        yield
    sharedmem.cleanup()


def arrived(array):
    return pickle.loads(ForkingPickler.dumps(array))


def filled(nbytes, value=1):
    return np.full(nbytes, value, np.uint8)


def page_faults():
    import resource  # which only POSIX has

    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def test_an_array_arrives_in_the_memory_of_one_that_was_dropped():
    first = arrived(filled(6 * MIB, 1))
    place = support.address(first)
    del first
    other = np.ones(6 * MIB, np.uint8)  # takes what malloc has
    second = arrived(filled(6 * MIB, 2))
    assert support.address(second) == place
    assert (second == 2).all()
    assert (other == 1).all()


def test_its_pages_are_there():
    data = filled(6 * MIB)
    faults = 0
    for turn in range(23):
        message = ForkingPickler.dumps(data)
        before = page_faults()
        a = pickle.loads(message)
        if turn >= 3:
            faults += page_faults() - before
        other = filled(6 * MIB)
        del a, other  # malloc gives so much back to the system
    assert faults < 20 * 100  # it would be 480 and more each: huge pages, and those of 4 KiB around them


def test_arrays_that_live_at_once_have_memory_of_their_own():
    many = [arrived(filled(2 * MIB, i)) for i in range(20)]
    del many[::2]
    many += [arrived(filled(2 * MIB, 100 + i)) for i in range(10)]
    assert [int(a[0]) for a in many] == [*range(1, 20, 2), *range(100, 110)]
    assert all((a == a[0]).all() for a in many)


def test_it_is_an_ordinary_array():
    arrived(filled(2 * MIB))
    a = arrived(np.arange(2 * MIB // 8))
    assert type(a) is np.ndarray
    assert a.base is None
    assert a.flags.owndata
    assert a.flags.behaved
    assert not sharedmem.is_shared(a)
    a.resize(3 * MIB // 8)
    assert (a[: 2 * MIB // 8] == np.arange(2 * MIB // 8)).all()
    assert not a[2 * MIB // 8 :].any()
    a.resize(MIB // 8)
    assert (a == np.arange(MIB // 8)).all()


def test_no_more_than_32_mib_are_kept():
    many = [arrived(filled(6 * MIB)) for _ in range(10)]
    assert kept_bytes() == 0
    del many
    assert kept_bytes() == 30 * MIB
    arrived(filled(40 * MIB))
    assert kept_bytes() == 30 * MIB
    arrived(filled(32 * MIB))
    assert kept_bytes() == 32 * MIB


def test_what_was_kept_last_stays():
    for nbytes in (MIB * 3, MIB * 5, MIB * 7, MIB * 9, MIB * 11):
        arrived(filled(nbytes))
    assert kept_bytes() == (5 + 7 + 9 + 11) * MIB


def test_few_pieces_are_kept():
    many = [arrived(filled(MIB)) for _ in range(20)]
    del many
    assert kept_bytes() == 8 * MIB


@pytest.mark.needs_linux
def test_what_is_not_kept_any_longer_is_freed():
    def drop_many():
        many = [arrived(filled(MIB)) for _ in range(20)]
        del many

    drop_many()
    before = support.private_memory()
    for _ in range(50):
        drop_many()  # of which eight are kept in place of those before
    assert support.private_memory() < before + 200 * MIB


def test_small_arrays_take_no_large_memory():
    arrived(filled(8 * MIB))
    a = arrived(filled(7 * MIB))
    assert kept_bytes() == 8 * MIB
    b = arrived(filled(8 * MIB - MIB // 2, 3))
    assert kept_bytes() == 0
    assert a[-1] == 1
    assert b[-1] == 3


def test_cleanup_gives_it_back():
    arrived(filled(6 * MIB))
    kept = kept_bytes()
    assert kept == 6 * MIB
    assert sharedmem.cleanup() >= kept
    assert kept_bytes() == 0


def test_small_arrays_are_not_kept():
    arrived(filled(MIB // 2))
    assert kept_bytes() == 0


def test_what_became_small_is_not_kept():
    """NumPy's own handler has a cache for small memory that only a thread with the GIL may use."""
    a = arrived(filled(2 * MIB))
    a.resize(80)
    del a
    assert kept_bytes() == 0


def test_an_array_that_grew_is_kept_as_a_whole():
    a = arrived(filled(2 * MIB))
    a.resize(5 * MIB)
    del a
    assert kept_bytes() == 5 * MIB
    b = arrived(filled(5 * MIB, 7))
    assert kept_bytes() == 0
    assert (b == 7).all()


def test_an_array_that_cannot_grow_stays():
    a = arrived(filled(2 * MIB, 4))
    with pytest.raises(MemoryError):
        a.resize(min(1 << 60, sys.maxsize))
    assert (a == 4).all()
    del a
    assert kept_bytes() == 2 * MIB


def test_a_handler_of_the_caller_is_used():
    with sharedmem.allocator():
        a = arrived(filled(2 * MIB))
        assert sharedmem.is_shared(a)
    del a
    assert kept_bytes() == 0


def test_a_forked_child_begins_with_nothing_kept():
    arrived(filled(6 * MIB))
    a = arrived(filled(4 * MIB, 5))

    def child():
        assert kept_bytes() == 0
        a[0] = 6
        b = arrived(a)
        assert b[0] == 6
        assert (b[1:] == 5).all()

    assert support.in_fork(child) == 0
    assert (a == 5).all()


def test_threads_receive_and_drop_at_once():
    failures = []

    def receive(value):
        for size in (2, 3, 2, 5, 1) * 8:
            a = arrived(filled(size * MIB, value))
            if not (a == value).all():
                failures.append(value)

    threads = [threading.Thread(target=receive, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert kept_bytes() <= 32 * MIB


def test_what_is_kept_serves_others_when_memory_is_short():
    support.check_python("""
import pickle, resource, numpy as np, sharedmem
from multiprocessing.reduction import ForkingPickler
from sharedmem._transfers.blocks import kept_bytes
sharedmem.transport()
small, large = (ForkingPickler.dumps(np.ones(n << 17)) for n in (20, 30))
pickle.loads(large)
assert kept_bytes() == 30 << 20
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 20), resource.RLIM_INFINITY))
assert len(pickle.loads(small)) == 20 << 17
""")


def test_arrays_that_live_until_the_end_of_the_program():
    support.check_python("""
import pickle, numpy as np, sharedmem
from multiprocessing.reduction import ForkingPickler
sharedmem.transport()
kept = pickle.loads(ForkingPickler.dumps(np.ones(1 << 20)))
cycle = [pickle.loads(ForkingPickler.dumps(np.ones(1 << 20)))]
cycle.append(cycle)
""")
