"""Programs with different versions of the library, whose arenas of names have different layouts."""

import ctypes
import json
import uuid

import commands
from naming import ended, own_names, program, said  # noqa: F401

#: Byte offsets in the header of an arena: the version of its layout, and how many names it can have.
AT_VERSION, AT_NAMES = 0, 72


def pretend_another_version(pid):
    """Make the arena of names that a process has made one of the next version; returns the segment's id."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    libc.shmat.argtypes = ctypes.c_int, ctypes.c_void_p, ctypes.c_int
    libc.shmdt.argtypes = (ctypes.c_void_p,)
    with open("/proc/sysvipc/shm") as table:
        rows = [line.split() for line in table][1:]
    changed = []
    for identity in (int(row[1]) for row in rows if int(row[4]) == pid):
        at = libc.shmat(identity, None, 0)
        version, names = (ctypes.c_uint32.from_address(at + offset) for offset in (AT_VERSION, AT_NAMES))
        if 0 < version.value < 100 and 0 < names.value <= 1 << 16:
            version.value += 1
            changed.append(identity)
        libc.shmdt(at)
    (identity,) = changed
    return identity


MAKES = """
a = sharedmem.create("x", 3)
print("made", flush=True)
sys.stdin.readline()
print(len(sharedmem.attach("x")), [each.name for each in sharedmem.names()])
"""

MEETS = """
print([each.name for each in sharedmem.names()])
b = sharedmem.create("x", 5)
print(len(sharedmem.attach("x")), flush=True)
sys.stdin.readline()
"""


def test_neither_sees_the_others_names_and_info_shows_both():
    namespace = f"versions {uuid.uuid4()}"
    with program(MAKES, SHAREDMEM_NAMESPACE=namespace) as other:
        assert said(other) == "made"
        identity = pretend_another_version(other.pid)
        with program(MEETS, SHAREDMEM_NAMESPACE=namespace) as own:
            assert (said(own), said(own)) == ("[]", "5")
            status, out, err = commands.run("info", "--json")
            assert (status, err) == (0, "")
            shown = {arena["segment"]: arena for arena in json.loads(out)["arenas"]}
            assert "another version" in shown[identity]["error"]
            names = [name for arena in shown.values() for name in arena.get("names") or ()]
            assert [name["shape"] for name in names if name["pid"] == own.pid] == [[5]]
            status, out, err = commands.run("info")
            assert f"Arena of segment {identity} cannot be read: the arena was made by another version" in out
            ended(own)
        assert ended(other) == "3 ['x']\n"
