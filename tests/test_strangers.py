"""Shared memory of other programs of the same user is left alone, whatever its key."""

import ctypes

import pytest
from support import check_python

IPC_CREAT, IPC_EXCL, IPC_RMID, SHM_RDONLY = 0o1000, 0o2000, 0, 0o10000

# A program that keeps data in a System V segment on purpose, and ends.
KEEP = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
libc.shmat.argtypes = ctypes.c_int, ctypes.c_void_p, ctypes.c_int
key, mode, data = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode()
identity = libc.shmget(key, ctypes.c_size_t(1 << 20), 0o3000 | mode)
assert identity >= 0
if data:
    ctypes.memmove(libc.shmat(identity, None, 0), data, len(data))
print(identity)
"""


# ftok(path, "S") gives such keys for files on devices with the minor numbers 77 and 78.
@pytest.mark.parametrize("key", [0x534D0007, 0x534E1234])
@pytest.mark.parametrize("mode", [0o600, 0o644])
@pytest.mark.parametrize("data", ["", "balance: 1000000"])
def test_the_first_use_leaves_other_programs_segments_alone(key, mode, data):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    libc.shmat.argtypes = ctypes.c_int, ctypes.c_void_p, ctypes.c_int
    libc.shmdt.argtypes = (ctypes.c_void_p,)
    identity = int(check_python(KEEP, key, mode, data))
    try:
        assert check_python("import sharedmem; print(sharedmem.ones(3).sum())") == "3.0"
        at = libc.shmat(identity, None, SHM_RDONLY)
        assert at not in (None, ctypes.c_void_p(-1).value), "the segment was removed"
        assert ctypes.string_at(at) == data.encode()
        libc.shmdt(at)
    finally:
        libc.shmctl(identity, IPC_RMID, None)
