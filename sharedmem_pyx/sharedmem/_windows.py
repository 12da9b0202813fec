"""What Windows tells of processes and threads, and which processes can open each other's memory."""

from __future__ import annotations

import ctypes
import sys
import winreg
from ctypes import wintypes

assert sys.platform == "win32"

_kernel = ctypes.WinDLL("kernel32", use_last_error=True)
_security = ctypes.WinDLL("advapi32", use_last_error=True)
for _function in (_kernel.OpenProcess, _kernel.OpenThread, _kernel.GetCurrentProcess):
    _function.restype = wintypes.HANDLE
for _function in (_kernel.OpenProcess, _kernel.OpenThread):
    _function.argtypes = wintypes.DWORD, wintypes.BOOL, wintypes.DWORD
_kernel.GetProcessIdOfThread.restype = wintypes.DWORD
_kernel.GetProcessIdOfThread.argtypes = (wintypes.HANDLE,)
_kernel.CloseHandle.argtypes = (wintypes.HANDLE,)
_kernel.WaitForSingleObject.argtypes = wintypes.HANDLE, wintypes.DWORD
_kernel.GetProcessTimes.argtypes = (wintypes.HANDLE, *[ctypes.POINTER(ctypes.c_uint64)] * 4)
_kernel.LocalFree.argtypes = (ctypes.c_void_p,)
_security.OpenProcessToken.argtypes = wintypes.HANDLE, wintypes.DWORD, ctypes.POINTER(wintypes.HANDLE)
_security.GetTokenInformation.argtypes = (
    wintypes.HANDLE,
    ctypes.c_int,
    ctypes.c_void_p,
    wintypes.DWORD,
    ctypes.POINTER(wintypes.DWORD),
)
_security.ConvertSidToStringSidW.argtypes = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)

_ERROR_INVALID_PARAMETER = 87
_SYNCHRONIZE, _QUERY_LIMITED_INFORMATION = 0x100000, 0x1000
_THREAD_QUERY_LIMITED_INFORMATION = 0x800
_TOKEN_QUERY = 8
_TOKEN_USER, _TOKEN_INTEGRITY_LEVEL, _TOKEN_APP_CONTAINER_SID = 1, 25, 31  # of TOKEN_INFORMATION_CLASS


def _failed() -> OSError:
    return ctypes.WinError(ctypes.get_last_error())


def start_of(pid: int) -> int:
    """When a living process started, in units of 100 ns since 1601; 0: there is none, or it has ended.

    Raises
    ------
    OSError
        The system does not tell.
    """
    process = _kernel.OpenProcess(_SYNCHRONIZE | _QUERY_LIMITED_INFORMATION, False, pid)
    if not process:
        if ctypes.get_last_error() == _ERROR_INVALID_PARAMETER:
            return 0  # any other error, such as a refusal, says nothing of that process
        raise _failed()
    try:
        if _kernel.WaitForSingleObject(process, 0) == 0:
            return 0  # it has ended, but some process still has a handle of it
        times = [ctypes.c_uint64() for _ in range(4)]
        if not _kernel.GetProcessTimes(process, *map(ctypes.byref, times)):
            raise _failed()
        return times[0].value
    finally:
        _kernel.CloseHandle(process)


def process_of_thread(thread: int) -> int:
    """The pid of the process that a thread belongs to; 0: it has ended, or the system does not tell."""
    found = _kernel.OpenThread(_THREAD_QUERY_LIMITED_INFORMATION, False, thread)
    if not found:
        return 0
    try:
        return int(_kernel.GetProcessIdOfThread(found))
    finally:
        _kernel.CloseHandle(found)


def place_parts() -> list[str]:
    """The machine, and what decides which named objects this process sees and may open.

    The session is part of what the library says of the host. Raises OSError if the system does not tell.
    """
    key = winreg.OpenKey(
        winreg.HKEY_LOCAL_MACHINE,
        r"SOFTWARE\Microsoft\Cryptography",
        access=winreg.KEY_READ | winreg.KEY_WOW64_64KEY,
    )
    with key:
        machine = str(winreg.QueryValueEx(key, "MachineGuid")[0])
    token = wintypes.HANDLE()
    if not _security.OpenProcessToken(_kernel.GetCurrentProcess(), _TOKEN_QUERY, ctypes.byref(token)):
        raise _failed()
    try:
        kinds = (_TOKEN_USER, _TOKEN_INTEGRITY_LEVEL, _TOKEN_APP_CONTAINER_SID)
        return [machine, *(_identifier(token, kind) for kind in kinds)]
    finally:
        _kernel.CloseHandle(token)


def _identifier(token: wintypes.HANDLE, kind: int) -> str:
    """A security identifier of a token, as text; empty if it has none."""
    room = (ctypes.c_void_p * 32)()  # a structure that begins with a pointer to the identifier, and that
    used = wintypes.DWORD()
    if not _security.GetTokenInformation(token, kind, room, ctypes.sizeof(room), ctypes.byref(used)):
        raise _failed()
    if not room[0]:
        return ""
    text = ctypes.c_void_p()
    if not _security.ConvertSidToStringSidW(room[0], ctypes.byref(text)):
        raise _failed()
    try:
        return ctypes.wstring_at(text.value or 0)
    finally:
        _kernel.LocalFree(text)
