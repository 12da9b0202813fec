"""stats, participants, collect, revoke, new_arena: calls by which a user inspects and controls the arena."""

import os
import pickle

import pytest
import workers
from support import KINDS, Remote, check_python, environment, run_python, settle

import sharedmem

KEYS = {
    "live_bytes",
    "live_blocks",
    "cached_bytes",
    "mapped_bytes",
    "arena_bytes",
    "available_bytes",
    "participants",
    "segments",
    "leases",
    "bytes_in_flight",
    "attached_arenas",
    "cache_limit",
    "arena",
    "backing",
}


def test_stats():
    a = sharedmem.ones(1000)
    stats = sharedmem.stats()
    assert set(stats) >= KEYS
    assert all(isinstance(stats[key], int) and stats[key] >= 0 for key in KEYS - {"arena", "backing"})
    assert stats["live_blocks"] >= 1
    assert stats["live_bytes"] >= a.nbytes
    assert stats["mapped_bytes"] >= a.nbytes
    assert stats["arena_bytes"] >= stats["mapped_bytes"]
    assert stats["participants"] >= 1
    assert stats["attached_arenas"] >= 1
    assert stats["backing"] in ("sysv", "memfd")
    assert len(stats["arena"]) == 32
    assert int(stats["arena"], 16)


def test_stats_before_the_first_use():
    code = "import sharedmem; stats = sharedmem.stats(); print(stats['live_blocks'], stats['leases'])"
    assert check_python(code) == "0 0"


@pytest.mark.needs_posix  # Windows commits all of an array's memory at once
def test_sparse_memory_is_not_mapped():
    sharedmem.cleanup()
    before = sharedmem.stats()["mapped_bytes"]
    a = sharedmem.empty(2**28, "u1", populate=False)
    assert sharedmem.stats()["mapped_bytes"] < before + 2**26
    a[: 2**23] = 1
    assert sharedmem.stats()["mapped_bytes"] >= before + 2**22


def test_populate_reserves_before_it_returns():
    """In an arena of its own: on Windows, memory of earlier tests is still there."""
    code = """
    import sharedmem
    sharedmem.ones(1)
    before = sharedmem.stats()["mapped_bytes"]
    a = sharedmem.empty(2**26, "u1", populate=True)
    print(sharedmem.stats()["mapped_bytes"] - before >= 2**26 - 2**22)
    """
    assert check_python(code) == "True"


@pytest.mark.parametrize("kind", KINDS)
def test_which_processes_share_an_arena(kind):
    a = sharedmem.ones(10)
    with Remote(kind) as remote:
        before = sharedmem.stats()["participants"]
        here = sharedmem.stats()["attached_arenas"]
        theirs = remote.call(workers.stats)
        remote.call(workers.hold_full, "own", 1000, 1.0)
        remote.call(workers.hold, "a", a)
        theirs = remote.call(workers.stats)
        rows = {row["pid"]: row for row in sharedmem.participants()}
        assert remote.pid in rows
        assert sharedmem.stats()["participants"] >= max(before, 2)
        if kind == "unrelated":
            assert theirs["arena"] != sharedmem.stats()["arena"]
            assert theirs["attached_arenas"] == 2
        else:
            assert theirs["arena"] == sharedmem.stats()["arena"]
            # A forked child also has what its parent had met before, the arena of names for instance.
            assert theirs["attached_arenas"] == (here if kind == "fork" else 1)


def test_a_foreign_arena_is_left_with_its_last_array():
    with Remote("unrelated") as remote:
        before = sharedmem.stats()["attached_arenas"]
        remote.call(workers.hold_full, "a", 1000, 1.0)
        data = remote.call(workers.plain_handle, "a")
        a = pickle.loads(data)
        view = a[5:]
        assert sharedmem.stats()["attached_arenas"] == before + 1
        del a
        assert view.sum() == 995
        del view
        settle()
        assert sharedmem.stats()["attached_arenas"] == before
        assert pickle.loads(data).sum() == 1000
        assert sharedmem.stats()["attached_arenas"] == before


def test_participants():
    sharedmem.ones(10)
    rows = sharedmem.participants()
    mine = [row for row in rows if row["self"]]
    assert len(mine) == 1
    assert mine[0]["pid"] == os.getpid()
    assert mine[0]["state"] == "active"
    assert {"slot", "pid", "state", "chunks", "bytes", "self"} <= set(mine[0])
    assert len({row["slot"] for row in rows}) == len(rows)
    big = sharedmem.ones(50_000_000, "u1")
    assert next(row for row in sharedmem.participants() if row["self"])["bytes"] >= big.nbytes


def test_collect_of_nothing():
    sharedmem.collect()
    assert sharedmem.collect() == 0
    assert isinstance(sharedmem.collect(leases=True), int)
    assert sharedmem.revoke(10**6) == 0


@pytest.mark.parametrize("age", [-1, "soon", None])
def test_revoke_takes_a_number_of_seconds(age):
    with pytest.raises((TypeError, ValueError), match="older_than must be a number of seconds"):
        sharedmem.revoke(age)


def test_memory_limit_refuses_nonsense():
    for value in (-1, "much"):
        with pytest.raises((TypeError, ValueError, OverflowError)):
            sharedmem.memory_limit(cache=value)


def test_the_locator_is_in_the_environment_of_python_and_of_c():
    code = """
    import os, subprocess, sys, sharedmem
    sharedmem.ones(1)
    ask = "import sharedmem; sharedmem.ones(1); print(sharedmem.stats()['arena'])"
    mine = sharedmem.stats()["arena"]
    for env in (None, dict(os.environ)):
        done = subprocess.run([sys.executable, "-c", ask], env=env, capture_output=True, check=True)
        print(done.stdout.decode().strip() == mine)
    stripped = {name: text for name, text in os.environ.items() if name != "SHAREDMEM_ARENA"}
    done = subprocess.run([sys.executable, "-c", ask], env=stripped, capture_output=True, check=True)
    print(done.stdout.decode().strip() == mine)
    """
    assert check_python(code).split() == ["True", "True", "False"]


@pytest.mark.parametrize(
    "locator",
    ["nonsense", "", "0" * 200, "a" * 5000, "new", "../../etc/passwd", "\x01\x02", "sysv:1:2:3"],
    ids=lambda text: text[:10],
)
def test_a_bad_locator_is_passed_over(locator):
    code = "import sharedmem; print(sharedmem.ones(10).sum(), sharedmem.stats()['participants'])"
    assert check_python(code, SHAREDMEM_ARENA=locator) == "10.0 1"


def test_a_changed_locator_never_crashes():
    good = environment()["SHAREDMEM_ARENA"]
    code = "import sharedmem; print(sharedmem.ones(10).sum())"
    for i in range(0, len(good), max(1, len(good) // 6)):
        changed = good[:i] + ("x" if good[i] != "x" else "y") + good[i + 1 :]
        assert check_python(code, SHAREDMEM_ARENA=changed) == "10.0"
        assert check_python(code, SHAREDMEM_ARENA=good[:i]) == "10.0"


def test_the_locator_of_a_dead_tree_is_passed_over():
    dead = check_python("import os, sharedmem; sharedmem.ones(1); print(os.environ['SHAREDMEM_ARENA'])")
    code = "import sharedmem; print(sharedmem.ones(10).sum(), sharedmem.stats()['participants'])"
    assert check_python(code, SHAREDMEM_ARENA=dead) == "10.0 1"


def test_the_word_new_starts_a_tree_of_its_own():
    code = "import sharedmem; sharedmem.ones(1); print(sharedmem.stats()['arena'])"
    assert check_python(code, SHAREDMEM_ARENA="new") != sharedmem.stats()["arena"]
    assert check_python(code, related=True) == sharedmem.stats()["arena"]


def test_new_arena():
    code = """
    import os, pickle, sharedmem
    a = sharedmem.full(1000, 1.0)
    first = sharedmem.stats()["arena"]
    assert sharedmem.new_arena() is None
    b = sharedmem.full(1000, 2.0)
    second = sharedmem.stats()["arena"]
    assert first != second
    assert (a == 1).all() and (b == 2).all()
    for x in (a, b):
        y = pickle.loads(pickle.dumps(x))
        y[0] = 9
        assert x[0] == 9
    if os.fork() == 0:
        a[1] = b[1] = 8
        os._exit(int(sharedmem.stats()["arena"] != second))
    assert os.wait()[1] == 0
    assert a[1] == b[1] == 8
    print(sharedmem.stats()["attached_arenas"])
    """
    assert check_python(code) == "2"


def test_two_trees_exchange_arrays():
    with Remote("unrelated") as one, Remote("unrelated") as other:
        one.call(workers.hold_full, "a", 100, 1.0)
        other.call(workers.hold_handle, "b", one.call(workers.plain_handle, "a"))
        other.call(workers.store_held, "b", 5, 11.0)
        assert one.call(workers.total_held, "a") == 110
        assert one.call(workers.stats)["participants"] == 2
        other.call(workers.drop, "b")
        assert one.call(workers.stats)["participants"] == 1


def test_paths_for_building_against_the_library():
    assert sharedmem.get_include()
    for folder in [*sharedmem.get_include(), sharedmem.get_library_dir(), sharedmem.get_cython_include()]:
        assert os.path.isdir(folder)
    assert any(
        os.path.isfile(os.path.join(folder, "sharedmem", "handle.hpp")) for folder in sharedmem.get_include()
    )
    assert os.path.isfile(os.path.join(sharedmem.get_library_dir(), "libsharedmem.so"))


def test_version_and_names():
    assert sharedmem.__version__
    for name in (
        "empty",
        "zeros",
        "ones",
        "full",
        "empty_like",
        "zeros_like",
        "ones_like",
        "full_like",
        "array",
        "copy",
        "asshared",
        "load",
        "fromfile",
        "is_shared",
        "SharedArray",
        "cleanup",
        "StaleHandleError",
        "pickle_by_value",
        "collect",
        "revoke",
        "stats",
        "participants",
        "memory_limit",
        "new_arena",
    ):
        assert name in sharedmem.__all__
        assert getattr(sharedmem, name).__doc__


def test_the_package_can_be_reloaded_and_star_imported():
    code = """
    from sharedmem import *
    a = empty(3)
    import sharedmem
    assert a.shape == (3,)
    assert "np" not in globals()
    """
    status, _, err = run_python(code)
    assert (status, err) == (0, b"")


STRAY_WRITE = """
import ctypes, pickle, sys
import sharedmem, sharedmem.arena
a = sharedmem.full(1000, 3.0)
data = pickle.dumps(a)
size = sharedmem.stats()["arena_bytes"]
with open("/proc/self/maps") as file:
    spans = [[int(x, 16) for x in line.split()[0].split("-")] for line in file if "SYSV" in line]
where = a.__array_interface__["data"][0]
base = next(end for first, end in spans if first <= where < end) - size

def words(offset, number=1):
    return (ctypes.c_uint64 * number).from_address(base + offset)

sharedmem.arena.check()
if sys.argv[1] == "header":
    words(64)[0] ^= 1 << 40                     # number of chunks
else:
    descriptors = words(words(120)[0], 8000)
    live = next(i for i in range(0, 8000, 8) if descriptors[i] & 3 == 1)
    descriptors[live + 2] = 1 << 60             # where the block lies
for act in (sharedmem.arena.check, lambda: pickle.loads(data)):
    try:
        act()
    except RuntimeError as error:
        print(error)
    else:
        print("nothing")
"""


def test_a_stray_write_into_the_tables_is_named():
    for text in check_python(STRAY_WRITE, "descriptor").splitlines():
        assert "the descriptor of block 0" in text
    assert "header" in check_python(STRAY_WRITE, "header").splitlines()[0]
