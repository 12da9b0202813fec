"""Names at their limits: all of them in use, keys in use, no System V memory."""

import platform

import pytest
import support
from naming import own_names  # noqa: F401
from support import needs_root


def test_one_name_more_than_there_are():
    code = """
    import os, sharedmem
    os.environ["SHAREDMEM_NAMESPACE"] = f"all in use {os.getpid()}"
    kept = [sharedmem.create(f"name {i}", i % 3) for i in range(4096)]
    for make in (
        lambda: sharedmem.create("one more", 3),
        lambda: sharedmem.get_or_create("one more", lambda: 1 / 0),
        lambda: sharedmem.RLock(name="one more"),
    ):
        try:
            make()
        except MemoryError as error:
            print("all 4096 names" in str(error), "SHAREDMEM_NAMESPACE" in str(error))
    print(len(sharedmem.names()), len(sharedmem.attach("name 4094")))
    del kept[7]
    print(len(sharedmem.create("one more", 3)))
    """
    assert support.check_python(code).splitlines() == ["True True"] * 3 + ["4096 2", "3"]


def test_few_addresses_are_left():
    """The arena of another namespace that this process has need not be attached again to see what it is."""
    code = """
    import os, resource
    os.environ["SHAREDMEM_ARENA_SIZE"] = "256MiB"
    os.environ["SHAREDMEM_NAMESPACE"] = f"first {os.getpid()}"
    import sharedmem
    kept = sharedmem.create("x", 3)
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20), resource.RLIM_INFINITY))
    os.environ["SHAREDMEM_NAMESPACE"] = f"second {os.getpid()}"
    other = sharedmem.create("x", 4)
    print(len(kept), len(other), len(sharedmem.attach("x")))
    """
    assert support.check_python(code) == "3 4 4"


@needs_root
def test_a_key_that_another_user_has_taken_costs_a_moment():
    """The memory of names is made under a key of the system for a moment; a stranger may hold just that."""
    support.needs_namespaces("--ipc")
    code = """
    import ctypes, os, re, sharedmem
    import sharedmem._names, sharedmem._new_names  # another user may not read where it is installed
    libc = ctypes.CDLL(None)

    def key_of_names():
        libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: so that it may read its own maps
        a = sharedmem.create("x", 3)
        with open("/proc/self/maps") as maps:
            (key,) = set(re.findall(r"/SYSV(53[89a-f][0-9a-f]{5})", maps.read()))
        return int(key, 16)

    def as_user(user, function, *args):
        reading, writing = os.pipe()
        if (pid := os.fork()) == 0:
            os.setresuid(user, user, user)
            os.write(writing, str(function(*args)).encode())
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        return int(os.read(reading, 100))

    first = as_user(65534, key_of_names)
    print(as_user(65533, libc.shmget, first, 4096, 0o3600) >= 0)
    print(as_user(65534, key_of_names) != first)
    """
    assert support.check_python(code, prefix=("unshare", "--ipc")).splitlines() == ["True", "True"]


#: From now on the system calls of System V memory fail as they do where the kernel has none.
NO_SYSTEM_V = """
import ctypes, errno, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
load, equal, answer = 0x20, 0x15, 0x06  # BPF: a word of the call, a jump, the verdict
calls = (29, 30, 31, 67) if sys.maxsize >> 32 else (117, 395, 396, 397, 398)  # ipc, and its parts since 5.1
lines = [(load, 0, 0, 0)]
lines += [(equal, len(calls) - i, 0, call) for i, call in enumerate(calls)]
lines += [(answer, 0, 0, 0x7FFF0000), (answer, 0, 0, 0x00050000 | errno.ENOSYS)]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
head = ctypes.create_string_buffer(struct.pack("HP", len(lines), ctypes.addressof(program)))
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(head), 0, 0):
    raise SystemExit(77)
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of system calls")
def test_where_a_sandbox_forbids_system_v_memory():
    code = (
        NO_SYSTEM_V
        + """
import pickle, sharedmem
for ask in (
    lambda: sharedmem.create("x", 3),
    lambda: sharedmem.attach("x"),
    lambda: sharedmem.get_or_create("x", lambda: 1),
    lambda: sharedmem.unlink("x"),
    lambda: sharedmem.names(),
    lambda: sharedmem.Event(name="x"),
):
    try:
        print("no error", ask())
    except OSError as error:
        print(errno.errorcode[error.errno], "System V" in str(error))
a = sharedmem.ones(1000)
print(pickle.loads(pickle.dumps(a)).sum())
"""
    )
    status, out, err = support.run_python(code)
    if status == 77:
        pytest.skip("no filter of system calls can be set here")
    assert (status, err.decode()) == (0, "")
    assert out.decode().splitlines() == ["ENOSYS True"] * 6 + ["1000.0"]


@pytest.mark.parametrize("limit", ["shmmax=100000000", "shmall=40000"])
def test_where_the_system_gives_little_system_v_memory(limit):
    """In pages, for shmall: the arena of names is made as large as there is room, beside the home arena."""
    support.needs_namespaces("--ipc")
    code = """
    import numpy as np, sharedmem
    a = sharedmem.ones(1000)
    b = sharedmem.get_or_create("x", lambda: np.ones(200_000))
    print(a.sum(), b.sum(), sharedmem.stats()["attached_arenas"])
    """
    name, _, value = limit.partition("=")
    status, out, err = support.run_python(
        code, prefix=["unshare", "--ipc"], shell=f"echo {value} > /proc/sys/kernel/{name} || exit 77"
    )
    if status == 77:
        pytest.skip("the limit cannot be set here")
    assert (status, out.decode(), err.decode()) == (0, "1000.0 200000.0 2\n", "")
