"""The limit of a control group is an exception, not the kernel's killer."""

import contextlib
import os
import time
from pathlib import Path

import pytest
from support import check_memory_message, check_python, needs_namespaces, needs_root, run_python, wait_until

pytestmark = needs_root

MEBI = 2**20
LIMIT = 300 * MEBI
ONE_THREAD = {"OPENBLAS_NUM_THREADS": 1}  # or NumPy's own memory grows with the machine's cores

# Where version 1 and 2 have the groups, and what the files are called.
CGROUP = {
    "v1": ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    "v2": ("/sys/fs/cgroup", "memory.max", "memory.current"),
}


def version_and_group():
    """The version in use here and the path of this process's group in it."""
    with open("/proc/self/cgroup") as file:
        groups = dict(line.rstrip().split(":", 2)[1:] for line in file)
    return ("v1", groups["memory"]) if "memory" in groups else ("v2", groups.get("", "/"))


@contextlib.contextmanager
def new_group():
    """Folder of a new group, limited to LIMIT, below this process's own; gone afterwards."""
    version, own = version_and_group()
    top, limit, _ = CGROUP[version]
    folder = Path(f"{top}{own}") / f"sharedmem-{os.getpid()}-{time.monotonic_ns()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no group of our own: {error}")
    try:
        try:
            (folder / limit).write_text(str(LIMIT))
            swap = folder / "memory.swap.max"  # or memory beyond the limit is only slow
            if swap.exists():
                swap.write_text("0")
        except OSError as error:  # the controller is not handed down to it
            pytest.skip(f"no limit for a group of our own: {error}")
        yield folder
    finally:
        assert wait_until(lambda: removed(folder))


def removed(folder):
    with contextlib.suppress(OSError):
        folder.rmdir()
    return not folder.exists()


def killed(group):
    """How many processes of the group the kernel has killed for lack of memory."""
    for name in ("memory.oom_control", "memory.events"):
        if (group / name).exists():
            values = dict(line.split() for line in (group / name).read_text().splitlines())
            return int(values["oom_kill"])
    return pytest.skip("this kernel does not count them")


def inside(group):
    """Shell that puts its process into the group."""
    return f"echo $$ > {group}/cgroup.procs"


@pytest.mark.parametrize("size", [50_000, 4 * MEBI, 24 * MEBI])
def test_filled_to_the_limit(size):
    code = """
    import sys
    import sharedmem
    size = int(sys.argv[1])
    kept = sharedmem.ones(20 * 2**20, "u1")
    arrays = []
    try:
        while True:
            arrays.append(sharedmem.ones(size, "u1"))
    except MemoryError as error:
        print(error)
    made = len(arrays)
    del arrays
    again = [sharedmem.ones(size, "u1") for _ in range(made * 9 // 10)]
    print(made, kept.all(), all(a.all() for a in again))
    """
    with new_group() as group:
        out = check_python(code, size, shell=inside(group), **ONE_THREAD)
        assert killed(group) == 0
    message, _, figures = out.rpartition("\n")
    check_memory_message(message, size)
    assert "cgroup" in message
    made, kept, again = figures.split()
    assert (kept, again) == ("True", "True")
    assert LIMIT // 2 < int(made) * size < LIMIT


@pytest.mark.parametrize("size", [50_000, 300_000, 4 * MEBI, 24 * MEBI])
@pytest.mark.parametrize("processes", [4, 12])
def test_filled_by_several_at_once(processes, size):
    """An estimate: two processes that look at the same instant may both continue, but that is rare."""
    code = """
    import os, sys, time
    import sharedmem
    processes, size = map(int, sys.argv[1:])
    here = sharedmem.zeros(processes, "i8")
    for i in range(processes):
        if os.fork() == 0:
            arrays = []
            try:
                while True:
                    arrays.append(sharedmem.ones(size, "u1"))
            except MemoryError:
                here[i] = 1 + len(arrays)
            while not here.all():
                time.sleep(0.01)
            os._exit(0)
    for _ in range(processes):
        if os.wait()[1]:
            here[:] = 1  # no process waits for the one that was killed
    print((here - 1).sum(), sharedmem.ones(100 * 2**20, "u1").all())
    """
    for _ in range(3):
        with new_group() as group:
            made, again = check_python(code, processes, size, shell=inside(group), **ONE_THREAD).split()
            assert again == "True"  # in any case
            if killed(group) == 0:
                break
    else:
        pytest.fail("each time processes of the group were killed")
    assert LIMIT // 2 < int(made) * size < LIMIT


def test_the_limit_is_read_from_the_files_of_the_kernel():
    """Files in place of a group's: of both versions, also where no group can be made."""
    needs_namespaces("--mount")
    version, own = version_and_group()
    top, limit, usage = CGROUP[version]
    group = top + own
    if not os.path.isdir(top):
        pytest.skip(f"no {top}")
    shell = f"""
    mount -t tmpfs tmpfs {top} && mkdir -p {group} || exit 77
    for folder in {top} {group}; do
        echo {LIMIT} > $folder/{limit}
        echo {20 * MEBI} > $folder/{usage}
    done"""
    code = """
    import sharedmem
    available = [sharedmem.stats()["available_bytes"]]
    kept = sharedmem.empty(50 * 2**20, "u1", populate=False)
    available.append(sharedmem.stats()["available_bytes"])
    kept[:] = 1
    available.append(sharedmem.stats()["available_bytes"])
    print(*available)
    try:
        sharedmem.empty(400 * 2**20, "u1")
    except MemoryError as error:
        print(str(error).replace(chr(10), " "))
    print(sharedmem.ones(50 * 2**20, "u1").sum() == kept.sum())
    """
    status, out, err = run_python(code, prefix=["unshare", "--mount"], shell=shell)
    if status == 77:
        pytest.skip("nothing can be mounted there")
    assert (status, err) == (0, b"")
    figures, message, works = out.decode().splitlines()
    # The files do not change when memory is used. What is promised and not written yet is not available.
    before, promised, written = map(int, figures.split())
    assert before == LIMIT - LIMIT // 64 - 20 * MEBI
    assert 48 * MEBI < before - promised < 60 * MEBI
    assert before - 10 * MEBI < written <= before
    check_memory_message(message, 400 * MEBI)
    assert "cgroup" in message
    assert works == "True"
