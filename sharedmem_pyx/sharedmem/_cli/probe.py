"""``python -m sharedmem probe``: what this Windows does with shared memory, and whether the library works."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import platform
import sys
import time
import warnings
from ctypes import wintypes
from typing import Any

import numpy as np

import sharedmem
from sharedmem._cli.console import format_bytes

assert sys.platform == "win32"

_MIB, _GIB = 1 << 20, 1 << 30
_ALL_ACCESS = 0xF001F  # SECTION_ALL_ACCESS
_READ_WRITE, _RESERVE, _COMMIT, _RESET, _DECOMMIT = 4, 0x4000000, 0x1000, 0x80000, 0x4000
_VIEW_READ_WRITE, _READ_ONLY_VIEW, _NO_ACCESS = 6, 4, 1
_LIMIT = 60  # seconds for a process of ours

_kernel = ctypes.WinDLL("kernel32", use_last_error=True)
_pointer, _size = ctypes.c_void_p, ctypes.c_size_t


def _function(name: str, result: Any, *arguments: Any) -> Any:
    """A function of kernel32; None if this Windows has it not."""
    try:
        found = getattr(_kernel, name)
    except AttributeError:
        return None
    found.restype, found.argtypes = result, arguments
    return found


_create = _function(
    "CreateFileMappingW", _pointer, _pointer, _pointer, wintypes.DWORD, wintypes.DWORD, wintypes.DWORD,
    wintypes.LPCWSTR,
)  # fmt: skip
_open = _function("OpenFileMappingW", _pointer, wintypes.DWORD, wintypes.BOOL, wintypes.LPCWSTR)
_map = _function("MapViewOfFile", _pointer, _pointer, wintypes.DWORD, wintypes.DWORD, wintypes.DWORD, _size)
_unmap = _function("UnmapViewOfFile", wintypes.BOOL, _pointer)
_close = _function("CloseHandle", wintypes.BOOL, _pointer)
_allocate = _function("VirtualAlloc", _pointer, _pointer, _size, wintypes.DWORD, wintypes.DWORD)
_free = _function("VirtualFree", wintypes.BOOL, _pointer, _size, wintypes.DWORD)
_discard = _function("DiscardVirtualMemory", wintypes.DWORD, _pointer, _size)
_protect = _function(
    "VirtualProtect", wintypes.BOOL, _pointer, _size, wintypes.DWORD, ctypes.POINTER(wintypes.DWORD)
)


class _Performance(ctypes.Structure):  # PERFORMANCE_INFORMATION; sizes in pages
    _fields_ = (
        ("bytes", wintypes.DWORD),
        ("commit", _size),
        ("commit_limit", _size),
        ("commit_peak", _size),
        ("physical", _size),
        ("available", _size),
        ("cache", _size),
        ("kernel", _size),
        ("kernel_paged", _size),
        ("kernel_nonpaged", _size),
        ("page", _size),
        ("handles", wintypes.DWORD),
        ("processes", wintypes.DWORD),
        ("threads", wintypes.DWORD),
    )


def _performance() -> _Performance:
    found = _Performance(bytes=ctypes.sizeof(_Performance))
    ask = _function("K32GetPerformanceInfo", wintypes.BOOL, _pointer, wintypes.DWORD)
    if not ask(ctypes.byref(found), found.bytes):
        raise ctypes.WinError(ctypes.get_last_error())
    return found


def _say(what: str, answer: object) -> None:
    print(f"{what:<68} {answer}", flush=True)


def _yes(good: object) -> str:
    return "yes" if good else f"no, Windows error {ctypes.get_last_error()}"


def _section(nbytes: int, name: str | None = None) -> int:
    """A reserved section of the paging file; 0: refused."""
    return _create(-1, None, _READ_WRITE | _RESERVE, nbytes >> 32, nbytes & 0xFFFFFFFF, name) or 0


def _view(section: int, nbytes: int, how: int = _VIEW_READ_WRITE) -> int:
    return _map(section, how, 0, 0, nbytes) or 0


def run() -> int:
    """Prints one fact per line; the exit status is 0 if the library works."""
    _machine()
    _small_section()
    _large_sections()
    return _library()


def _machine() -> None:
    now = _performance()
    _say("Windows", ".".join(map(str, sys.getwindowsversion().platform_version)))
    versions = platform.python_version(), np.__version__, sharedmem.__version__
    _say("Python, NumPy, sharedmem", ", ".join(versions))
    _say("processors", os.cpu_count())
    _say("RAM", format_bytes(now.physical * now.page))
    limit, committed = format_bytes(now.commit_limit * now.page), format_bytes(now.commit * now.page)
    _say("commit limit, committed", f"{limit}, {committed}")


def _small_section() -> None:
    name = f"Local\\sharedmem-probe-{os.getpid()}"
    section = _section(64 * _MIB, name)
    _say("a reserved section can be made", _yes(section))
    first, second = _view(section, 64 * _MIB), _view(section, 64 * _MIB)
    _say("it can be seen whole, twice", _yes(first and second))
    if not (first and second):
        return
    for which in ("one piece of it can be committed", "... again"):
        _say(which, _yes(_allocate(first, _MIB, _COMMIT, _READ_WRITE)))
    ctypes.memset(first, 7, _MIB)
    _say("the other view sees what was committed and written", _byte(second) == 7)
    _say("MEM_DECOMMIT takes it back (it should not)", _yes(_free(first, _MIB, _DECOMMIT)))
    _say("MEM_RESET is accepted", _yes(_allocate(first, _MIB, _RESET, _READ_WRITE)))
    _say("... a byte of it then, in both views (was 7)", f"{_byte(first)}, {_byte(second)}")
    if _discard is None:
        _say("DiscardVirtualMemory", "not there")
    else:
        ctypes.memset(first, 7, _MIB)
        code = _discard(first, _MIB)
        _say("DiscardVirtualMemory: code, a byte of both views", f"{code}, {_byte(first)}, {_byte(second)}")
    old = wintypes.DWORD()
    _say(
        "a committed page can be made inaccessible",
        _yes(_protect(first + 8192, 4096, _NO_ACCESS, ctypes.byref(old))),
    )
    _close(section)
    _say("with views but no handle left it can be opened by name", _yes(_open(_READ_ONLY_VIEW, False, name)))
    _unmap(first)
    _unmap(second)


def _byte(view: int) -> int:
    return ctypes.c_ubyte.from_address(view + 4096).value


def _large_sections() -> None:
    for nbytes in (1 * _GIB, 16 * _GIB, 64 * _GIB):
        before = _performance()
        start = time.perf_counter()
        section = _section(nbytes)
        view = _view(section, nbytes) if section else 0
        took = time.perf_counter() - start
        after = _performance()
        kernel = (after.kernel_paged - before.kernel_paged) * after.page
        committed = (after.commit - before.commit) * after.page
        _say(
            f"{nbytes // _GIB} GiB reserved and seen whole",
            f"{_yes(view)}; {took * 1e6:.0f} us, committed {committed / _MIB:+.1f} MiB, "
            f"paged pool {kernel / _MIB:+.1f} MiB",
        )
        if view:
            _unmap(view)
        if section:
            _close(section)


def _add_one(a: Any) -> None:
    a += 1


def _hold(lock: Any, connection: Any) -> None:
    connection.send(lock.acquire())
    connection.recv()


def _library() -> int:
    """Whether arrays get to other processes, locks are inherited, and what is too large is refused."""
    good = True
    try:
        context = multiprocessing.get_context("spawn")
        a = sharedmem.zeros(25 * _MIB)
        process = context.Process(target=_add_one, args=(a,))
        start = time.perf_counter()
        process.start()
        process.join(_LIMIT)
        shared = bool((a == 1).all())
        _say("a spawned process works on the same 200 MiB", f"{shared}, {time.perf_counter() - start:.2f} s")

        lock, (ours, theirs) = sharedmem.Lock(), context.Pipe()
        process = context.Process(target=_hold, args=(lock, theirs))
        process.start()
        held = ours.poll(_LIMIT) and ours.recv()
        process.kill()
        process.join(_LIMIT)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # which tells of the death
            inherited = bool(held) and lock.acquire(timeout=_LIMIT)
        _say("the lock of a killed process is inherited", inherited)
        good = shared and inherited
        del a
        gc.collect()
        before = _performance()
        sharedmem.cleanup()
        after = _performance()
        freed = (after.available - before.available) * after.page
        committed = (after.commit - before.commit) * after.page
        _say("cleanup: RAM available, committed", f"{freed / _MIB:+.1f} MiB, {committed / _MIB:+.1f} MiB")
        for key, value in sharedmem.stats().items():
            if isinstance(value, int | str):
                _say(f"stats: {key}", value)
        try:
            sharedmem.empty(_performance().commit_limit * 4096 * 2, "u1")
            _say("twice the commit limit is a MemoryError", False)
            good = False
        except MemoryError as error:
            _say("twice the commit limit is a MemoryError", error)
    except Exception as error:
        _say("failed", f"{type(error).__name__}: {error}")
        good = False
    _say("the library works here", good)
    return 0 if good else 1
