"""More memory than is available is a MemoryError with the numbers, and the next allocation works."""

import re

import pytest
from support import check_memory_message, check_python, given_back, memory, needs_64_bit, settle

import sharedmem

MEBI = 2**20


def available():
    """Bytes that the library says are available, by the machine's memory or by a limit of this process's."""
    with pytest.raises(MemoryError) as caught:
        sharedmem.empty(2**60, "u1")
    return int(re.search(r"\((\d+) bytes\) are available", str(caught.value)).group(1))


@pytest.mark.parametrize("make", [sharedmem.empty, sharedmem.zeros, sharedmem.ones])
def test_more_than_the_machine_has(make):
    nbytes = (memory("MemTotal") // (2 * MEBI) + 1) * 2 * MEBI
    settle()
    before = sharedmem.stats()
    with pytest.raises(MemoryError) as caught:
        make(nbytes, "u1")
    check_memory_message(str(caught.value), nbytes)
    settle()
    after = sharedmem.stats()
    assert (after["live_blocks"], after["live_bytes"]) == (before["live_blocks"], before["live_bytes"])
    assert after["mapped_bytes"] <= before["mapped_bytes"] + 4 * MEBI
    assert (sharedmem.ones(MEBI) == 1).all()


@pytest.mark.parametrize("power", [40, 44, 50, 56, 60, 62])
def test_absurd_sizes(power):
    for _ in range(3):
        with pytest.raises(MemoryError) as caught:
            sharedmem.empty(2**power, "u1")
        check_memory_message(str(caught.value), 2**power)
    assert sharedmem.ones(1000).sum() == 1000


def test_what_the_dead_had_does_not_fill_a_small_arena():
    """The survivor keeps some of it warm, where no other process can take it."""
    code = """
    import os, sharedmem
    size = sharedmem.stats()["arena_bytes"]
    for _ in range(40):
        child = os.fork()
        if child == 0:
            a = sharedmem.ones(16 * 2**20, "u1")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        sharedmem.collect()
    print(sharedmem.stats()["arena_bytes"] == size, sharedmem.memory_limit()["cache"] <= size // 4)
    """
    assert check_python(code, SHAREDMEM_ARENA_SIZE="256MiB") == "True True"


@needs_64_bit
def test_copies_that_do_not_fit():
    import numpy as np

    huge = np.broadcast_to(np.ones(1), (2**44,))
    for make in (sharedmem.copy, sharedmem.array, sharedmem.asshared):
        with pytest.raises(MemoryError):
            make(huge)
    with pytest.raises(MemoryError):
        sharedmem.zeros_like(huge)
    with pytest.raises(MemoryError):
        sharedmem.full_like(huge, 1)


@needs_64_bit
@pytest.mark.needs_memory_limit
def test_what_is_promised_already_counts():
    """Lazy arrays that were never touched leave no room for more than there is.

    Other programs take and give back memory meanwhile: how many there is room for is not exact.
    """
    kept = []
    step = available() // 6 // MEBI * MEBI
    with pytest.raises(MemoryError):
        kept.extend(sharedmem.empty(step, "u1", populate=False) for _ in range(12))
    assert kept
    kept.clear()
    settle()
    assert sharedmem.empty(step, "u1", populate=False).nbytes == step


LIMITED = """
import resource, sys
import numpy
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]) * 2**20, resource.RLIM_INFINITY))
import sharedmem
"""


@pytest.mark.parametrize("mebibytes", [200, 600, 3000])
def test_under_a_limit_of_address_space(mebibytes):
    code = (
        LIMITED
        + """
a = sharedmem.ones(1000)
kept = [sharedmem.full(100_000, i, "u1") for i in range(20)]
try:
    sharedmem.zeros(4 * 2**30, "u1")
except MemoryError as error:
    print(str(error).replace(chr(10), " "))
b = sharedmem.full(1000, 2.0)
assert all((x == i).all() for i, x in enumerate(kept))
print(a.sum(), b.sum())
"""
    )
    message, sums = check_python(code, mebibytes).splitlines()
    check_memory_message(message, 4 * 2**30)
    assert sums == "1000.0 2000.0"


def test_under_hardly_any_address_space_the_import_works():
    """The smallest arena needs 16 MiB of it: less is an error that names the limit, and names it again."""
    code = (
        LIMITED
        + """
for _ in range(2):
    try:
        sharedmem.ones(1000)
    except (MemoryError, OSError) as error:
        print("ulimit -v" in str(error), "address space" in str(error))
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
print(sharedmem.ones(1000).sum())
"""
    )
    assert check_python(code, 12).splitlines() == ["True True", "True True", "1000.0"]


def test_attaching_without_address_space_does_not_affect_the_array():
    import pickle

    a = sharedmem.full(1000, 3.0)
    code = (
        LIMITED
        + """
import pickle
try:
    print(pickle.loads(bytes.fromhex(sys.argv[2])).sum())
except (MemoryError, OSError) as error:
    print("refused", "address space" in str(error))
"""
    )
    assert sharedmem.stats()["arena_bytes"] > 50 * MEBI  # which must be attached as a whole
    for related in (True, False):
        assert check_python(code, 50, pickle.dumps(a).hex(), related=related) == "refused True"
        assert check_python(code, 2**18, pickle.dumps(a).hex(), related=related) == "3000.0"
    assert (a == 3).all()


@pytest.mark.parametrize("size", ["4194304", "64MiB", "1GiB", "2097152", "1"])
def test_a_tiny_arena_grows(size):
    """Where one segment is too small several make the arena."""
    code = """
    import pickle, os, sharedmem
    arrays = [sharedmem.full(1_000_000, i, "u1") for i in range(150)]
    big = sharedmem.full(30_000_000, 5, "u1")
    assert all((a == i).all() for i, a in enumerate(arrays))
    assert (big == 5).all()
    assert (pickle.loads(pickle.dumps(arrays[-1])) == 149).all()
    if os.fork() == 0:
        arrays[0][:] = 77
        more = [sharedmem.full(1_000_000, i, "u1") for i in range(50)]
        big[:] = 6
        os._exit(0)
    assert os.wait()[1] == 0
    print(int(arrays[0].sum()) // 77, big[0], sharedmem.stats()["arena_bytes"] > 0)
    """
    assert check_python(code, SHAREDMEM_ARENA_SIZE=size) == "1000000 6 True"


def test_handles_into_a_later_segment_of_a_small_arena():
    code = """
    import multiprocessing, pickle, subprocess, sys
    import workers, sharedmem
    def main():
        arrays = [sharedmem.full(1_000_000, i, "u1") for i in range(40)]
        context = multiprocessing.get_context("spawn")
        with context.Pool(2) as pool:
            sums = pool.map(workers.total, arrays)
            made = pool.starmap(workers.full, [(1_000_000, float(i)) for i in range(8)])
            pool.close()
            pool.join()
        assert sums == [1_000_000 * i for i in range(40)]
        assert all((a == i).all() for i, a in enumerate(made))
        load = "import pickle, sys; print(pickle.loads(bytes.fromhex(sys.argv[1])).sum())"
        env = {"PATH": "/usr/bin"}
        for related in (None, env):
            said = subprocess.run([sys.executable, "-c", load, pickle.dumps(arrays[-1]).hex()],
                                  env=related, capture_output=True, check=True)
            print(int(said.stdout))
    main()
    """
    assert check_python(code, SHAREDMEM_ARENA_SIZE="8MiB").split() == ["39000000"] * 2


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ("nonsense", "ValueError"),
        ("-5", "ValueError"),
        ("99999999999999999999", "ValueError"),
        ("3 parsecs", "ValueError"),
        ("", "10.0"),  # as if it were not set
    ],
)
def test_an_odd_setting_never_breaks_the_import(size, said):
    code = """
    import sharedmem
    try:
        print(sharedmem.ones(10).sum())
    except ValueError as error:
        print(type(error).__name__)
        assert "SHAREDMEM_ARENA_SIZE" in str(error)
    """
    assert check_python(code, SHAREDMEM_ARENA_SIZE=size) == said


@pytest.mark.parametrize(
    "name", ["SHAREDMEM_ARENA_SIZE", "SHAREDMEM_CACHE_LIMIT", "SHAREDMEM_IN_FLIGHT_LIMIT", "SHAREDMEM_LINGER"]
)
@pytest.mark.parametrize("value", ["nonsense", "-5", "3 parsecs", "nan"])
def test_an_invalid_setting_raises(name, value):
    """By the first array, not by the import; and again by the next."""
    code = """
    import sharedmem
    for _ in range(2):
        try:
            sharedmem.ones(10)
        except ValueError as error:
            print(error)
    """
    first, again = check_python(code, **{name: value}).splitlines()
    assert first == again
    assert name in first
    assert f"'{value}'" in first
    assert "LINGER" in name or "the units are KiB, MiB" in first


@pytest.mark.parametrize("value", ["8GiB", [1], 1j, float("nan"), float("inf"), 1.9, 1e9, True])
def test_limits_of_cached_memory_that_are_not_numbers(value):
    with pytest.raises(TypeError, match="number of bytes"):
        sharedmem.memory_limit(value)


@pytest.mark.parametrize("value", [-1, 1 << 64, 10**30])
def test_a_limit_of_cached_memory_out_of_range(value):
    with pytest.raises(ValueError, match="number of bytes"):
        sharedmem.memory_limit(value)


def test_few_descriptors_and_many_arrays():
    code = """
    import os, pickle, resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    import sharedmem
    def lines():
        with open("/proc/self/maps") as file:
            return sum(1 for _ in file)
    before, fds = lines(), len(os.listdir("/proc/self/fd"))
    arrays = [sharedmem.full(100, i % 256, "u1") for i in range(10_000)]
    loaded = [pickle.loads(pickle.dumps(a)) for a in arrays]
    assert all((a == i % 256).all() for i, a in enumerate(loaded))
    assert lines() - before < 200, lines() - before
    assert len(os.listdir("/proc/self/fd")) <= fds + 2
    """
    check_python(code)


def test_no_descriptors_left():
    code = """
    import os
    import sharedmem
    a = sharedmem.ones(10)
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    b = sharedmem.full(100_000, 2.0)
    if os.fork() == 0:
        b += 1
        c = sharedmem.ones(10)
        os._exit(0)
    assert os.wait()[1] == 0
    print(a.sum(), b[0])
    """
    assert check_python(code) == "10.0 3.0"


def test_cleanup_gives_cached_memory_back_and_harms_nothing():
    sharedmem.cleanup()
    kept = [sharedmem.full(n, 7, "u1") for n in (10, 1000, 100_000, 5 * MEBI)]
    cached = [sharedmem.ones(8 * MEBI, "u1") for _ in range(8)]
    small = [sharedmem.ones(1000, "u1") for _ in range(1000)]
    del cached, small
    settle()
    before = sharedmem.stats()
    freed = sharedmem.cleanup()
    after = sharedmem.stats()
    assert isinstance(freed, int)
    assert given_back(60 * MEBI) <= freed <= before["mapped_bytes"]
    assert after["mapped_bytes"] <= before["mapped_bytes"] - given_back(freed) + 4 * MEBI
    assert before["cached_bytes"] >= 60 * MEBI
    assert after["cached_bytes"] <= 4 * MEBI
    assert after["live_blocks"] == before["live_blocks"]
    assert all((a == 7).all() for a in kept)
    assert not sharedmem.zeros(8 * MEBI, "u1").any()
    assert given_back(8 * MEBI) <= sharedmem.cleanup() <= given_back(12 * MEBI)
    assert sharedmem.cleanup() == 0
    assert all((a == 7).all() for a in kept)


def test_cleanup_counts_only_what_was_resident():
    lazy = sharedmem.empty(512 * MEBI, "u1", populate=False)
    lazy[0] = 1
    del lazy
    settle()
    before = sharedmem.stats()["mapped_bytes"]
    assert sharedmem.stats()["cached_bytes"] <= before
    assert sharedmem.cleanup() <= before


def test_the_limit_of_cached_memory():
    before = sharedmem.memory_limit()
    assert before["cache"] == sharedmem.stats()["cache_limit"]
    assert before["arena"] > 0
    try:
        assert sharedmem.memory_limit(cache=4 * MEBI)["cache"] == 4 * MEBI
        assert sharedmem.stats()["cache_limit"] == 4 * MEBI
        for _ in range(4):
            arrays = [sharedmem.ones(16 * MEBI, "u1") for _ in range(4)]
            del arrays
        settle()
        assert sharedmem.stats()["cached_bytes"] <= 64 * MEBI
        sharedmem.memory_limit(cache=0)
        a = sharedmem.ones(64 * MEBI, "u1")
        resident = sharedmem.stats()["mapped_bytes"]
        del a
        assert sharedmem.stats()["mapped_bytes"] <= resident - given_back(48 * MEBI)
        assert (sharedmem.ones(1000) == 1).all()
    finally:
        sharedmem.memory_limit(cache=before["cache"])
    assert sharedmem.memory_limit() == before


def test_the_environment_sets_the_limit_of_cached_memory():
    code = "import sharedmem; sharedmem.ones(1); print(sharedmem.memory_limit()['cache'])"
    assert check_python(code, SHAREDMEM_CACHE_LIMIT=12345678) == "12345678"
    assert check_python(code, SHAREDMEM_CACHE_LIMIT="64MiB") == str(64 * MEBI)


def test_the_tests_own_limits_are_wide_enough():
    """Otherwise what the tests above assert about MemoryError could hold for another reason."""
    resource = pytest.importorskip("resource")
    assert resource.getrlimit(resource.RLIMIT_AS)[0] in (resource.RLIM_INFINITY, -1)
