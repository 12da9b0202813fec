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
except (ValueError, PermissionError) as error:
    print("refused", len(str(error)) > 10)
"""
    )
    locator = {"SHAREDMEM_ARENA": "new"} if related else {}
    said = check_python(code, pickle.dumps(a).hex(), related=related, **locator)
    assert said == "refused True"
    assert (a == 3).all()


@needs_root
def test_another_user_does_not_join():
    """A locator in the environment of, say, `su` is passed over."""
    mine = sharedmem.stats()["arena"]
    sharedmem.collect()
    number = sharedmem.stats()["participants"]
    code = """
    import os, sys
    import numpy
    import sharedmem.array, sharedmem.creation, sharedmem.pickling
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
            with pytest.raises((ValueError, PermissionError)):
                pickle.loads(data)
            out, _ = process.communicate("", TIMEOUT)
            assert out.split() == ["35.0", "1"]
        finally:
            process.kill()
