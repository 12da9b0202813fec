"""What a test may leave behind on Windows: processes. Memory goes with the last of them, and has no list.

`remains` is the same for Linux.
"""

import contextlib
import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import time
from ctypes import wintypes

import sharedmem

# Seconds for processes that are about to end by themselves.
GRACE = 60.0

_SNAPSHOT_PROCESSES = 2  # TH32CS_SNAPPROCESS
_NONE = ctypes.c_void_p(-1).value  # INVALID_HANDLE_VALUE


class _Entry(ctypes.Structure):  # PROCESSENTRY32W
    _fields_ = (
        ("size", wintypes.DWORD),
        ("usage", wintypes.DWORD),
        ("pid", wintypes.DWORD),
        ("heap", ctypes.c_size_t),
        ("module", wintypes.DWORD),
        ("threads", wintypes.DWORD),
        ("parent", wintypes.DWORD),
        ("priority", wintypes.LONG),
        ("flags", wintypes.DWORD),
        ("program", wintypes.WCHAR * 260),
    )


def children(but=frozenset()):
    """The pids of Pythons below this process whose parents live, without `but` and what is below those."""
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.CreateToolhelp32Snapshot.restype = ctypes.c_void_p
    snapshot = kernel.CreateToolhelp32Snapshot(_SNAPSHOT_PROCESSES, 0)
    if snapshot == _NONE:
        raise ctypes.WinError(ctypes.get_last_error())
    parents = {}
    try:
        entry = _Entry(size=ctypes.sizeof(_Entry))
        found = kernel.Process32FirstW(ctypes.c_void_p(snapshot), ctypes.byref(entry))
        while found:
            if entry.program.lower().startswith("python"):
                parents[entry.pid] = entry.parent
            found = kernel.Process32NextW(ctypes.c_void_p(snapshot), ctypes.byref(entry))
    finally:
        kernel.CloseHandle(ctypes.c_void_p(snapshot))
    below, more = set(), {os.getpid()}
    while more:
        more = {pid for pid, parent in parents.items() if parent in more} - below - {os.getpid()} - but
        below |= more
    return below


def trackers():
    """The pids of what loky, also joblib's copy of it, keeps for later use: one process for each copy."""
    names = [name for name in sys.modules if name.endswith("loky.backend.resource_tracker")]
    return {sys.modules[name]._resource_tracker._pid for name in names}


class Snapshot:
    """What there is now."""

    def __init__(self):
        self.children = children()


def left_since(before, grace=GRACE):
    """Descriptions of the processes that came since `before` and do not end; they are killed."""
    end = time.monotonic() + grace
    while True:
        gc.collect()
        multiprocessing.active_children()
        sharedmem.collect()
        # What an earlier process has started goes with it, such as a tracker of loky for each of its workers.
        left = children(but=before.children) - trackers()
        if not left or time.monotonic() > end:
            break
        time.sleep(0.05)
    for pid in left:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGTERM)  # TerminateProcess
    return [f"process {pid}" for pid in sorted(left)]
