"""Another user of the machine: refused, and never used by mistake."""

import pickle
import subprocess
import sys

import pytest
from support import TIMEOUT, check_python, environment, needs_root, segments

import sharedmem

# Everything is imported first: another user may not be able to read our files.
BECOME = """
import os, pickle, sys
import numpy, sharedmem
sharedmem.asshared(numpy.ones(1))
sharedmem.stats  # loaded now: another user may not be allowed to read where the package is installed
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
"""


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o022])
def test_only_the_owner_may_use_a_segment(umask):
    code = """
    import os, sys
    os.umask(int(sys.argv[1]))
    import sharedmem
    a = sharedmem.ones(3)
    with open("/proc/sysvipc/shm") as file:
        next(file)
        rows = [line.split() for line in file]
    print(*{int(row[2], 8) & 0o777 for row in rows if int(row[4]) == os.getpid()})
    """
    assert check_python(code, umask) == str(0o600)


@needs_root
@pytest.mark.parametrize("related", [True, False], ids=["locator known", "unrelated"])
def test_another_user_cannot_load(related):
    a = sharedmem.full(5, 3.0)
    code = (
        BECOME
        + """
try:
    print("loaded", pickle.loads(bytes.fromhex(sys.argv[1])))
except PermissionError as error:
    print("refused", len(str(error)) > 10)
"""
    )
    locator = {"SHAREDMEM_ARENA": "new"} if related else {}
    said = check_python(code, pickle.dumps(a).hex(), related=related, **locator)
    assert said == "refused True"
    assert (a == 3).all()


@needs_root
def test_another_user_does_not_join():
    """A locator of another user's arena in the environment, as after `su`, is ignored."""
    mine = sharedmem.stats()["arena"]
    sharedmem.collect()
    number = sharedmem.stats()["participants"]
    code = """
    import os, sys
    import numpy
    import sharedmem.array, sharedmem._creation, sharedmem._transfers.pickling
    sharedmem.stats  # loaded now: another user may not be allowed to read where the package is installed
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    print(sharedmem.ones(10).sum(), sharedmem.stats()["arena"])
    """
    total, arena = check_python(code, related=True).split()
    assert total == "10.0"
    assert arena != mine
    assert sharedmem.stats()["participants"] == number


@needs_root
def test_root_does_not_take_another_users_memory():
    code = (
        BECOME
        + """
sharedmem.new_arena()
a = sharedmem.full(5, 7.0)
print(pickle.dumps(a).hex(), flush=True)
sys.stdin.read()
print(a.sum(), sharedmem.stats()["participants"])
"""
    )
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True, env=environment(related=False)
    ) as process:
        try:
            data = bytes.fromhex(process.stdout.readline())
            assert segments(process.pid)
            with pytest.raises(PermissionError):
                pickle.loads(data)
            out, _ = process.communicate("", TIMEOUT)
            assert out.split() == ["35.0", "1"]
        finally:
            process.kill()


# A daemon: it has an arena, then becomes another user.
DAEMON = """
import json, multiprocessing.connection, os, pickle, resource, sys
import numpy, sharedmem
before = sharedmem.full(1 << 16, 7.0)
first = sharedmem.stats()["arena"]
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
"""


@needs_root
def test_a_process_that_becomes_another_user_continues_in_its_own_arena():
    """What was shared before stays readable; children with the former arena's locator make their own."""
    code = (
        DAEMON
        + """
early = os.environ["SHAREDMEM_ARENA"]
after = sharedmem.full(1 << 16, 3.0)
now = sharedmem.stats()["arena"]
child = os.fork()
if child == 0:
    good = (before == 7).all() and sharedmem.stats()["arena"] == now
    os._exit(0 if good and sharedmem.ones(9).sum() == 9 else 1)
status = os.waitstatus_to_exitcode(os.wait()[1])
again = pickle.loads(pickle.dumps(before))
again[0] = 1
told = os.environ["SHAREDMEM_ARENA"]
print(json.dumps([now != first, told != early, status, before[0], (after == 3).all().item()]))
"""
    )
    assert check_python(code) == "[true, true, 0, 1.0, true]"


@needs_root
def test_children_of_a_process_that_became_another_user_exchange_arrays_with_it():
    """Another process of the new user attaches what was made after the change."""
    code = (
        DAEMON
        + """
a = sharedmem.full(1 << 16, 3.0)
reading, writing = multiprocessing.Pipe()
def work(connection):
    got = connection.recv()
    got[:] = 4
    connection.send(sharedmem.full(1 << 16, 5.0))
    connection.recv()
os.environ["SHAREDMEM_ARENA"] = "new"
child = os.fork()
if child == 0:
    sharedmem.new_arena()
    work(writing)
    os._exit(0)
reading.send(a)
back = reading.recv()
print(a.mean(), back.mean())
del back
reading.send(0)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
"""
    )
    assert check_python(code) == "4.0 5.0"


@needs_root
def test_failed_forks_of_a_process_that_became_another_user_are_undone():
    code = (
        DAEMON
        + """
import gc
held = [before, sharedmem.ones(1 << 16)]
soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
resource.setrlimit(resource.RLIMIT_NPROC, (0, hard))
failed = 0
for _ in range(600):
    try:
        if os.fork() == 0:
            os._exit(0)
        os.wait()
    except BlockingIOError:
        failed += 1
resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
child = os.fork()
if child == 0:
    os._exit(0 if (before == 7).all() and sharedmem.ones(9).sum() == 9 else 1)
status = os.waitstatus_to_exitcode(os.wait()[1])
sharedmem.collect()
print(failed, status, [p["state"] for p in sharedmem.participants()])
"""
    )
    assert check_python(code) == "600 0 ['active']"


@needs_root
def test_the_effective_user_may_change_to_and_fro():
    code = """
import os, sharedmem
arenas = set()
for turn in range(300):
    os.seteuid(65534 if turn % 2 else 0)
    kept = sharedmem.full(1 << 16, turn)
    arenas.add(sharedmem.stats()["arena"])
print(len(arenas))
"""
    assert check_python(code) == "2"
