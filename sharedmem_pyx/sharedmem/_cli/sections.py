"""What Windows reports on shared memory: the library's sections in this session, and who uses them.

The named sections of a session are entries of one directory of kernel objects, which the programs of that
session may list. Windows does not tell which processes have a section, nor what each of them has touched.
So the processes are those that the arenas list as their participants.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from ctypes import wintypes
from typing import Any

from sharedmem._cli.segments import Process, Segment

assert sys.platform == "win32"

#: The two forms of names in cpp/src/os/windows/segment.cpp: one that processes agree on, and random ones.
_OURS = re.compile(r"sharedmem-(?:meeting-(?P<number>[0-9a-f]{8})|(?P<tag>[0-9a-f]{16})-(?P<id>[0-9a-f]{8}))")

_DIRECTORY_QUERY, _SECTION_QUERY, _FILE_MAP_READ = 1, 1, 4
_QUERY_LIMITED_INFORMATION = 0x1000
_MEM_COMMIT = 0x1000
_STATUS_NO_MORE_ENTRIES = 0x8000001A
_PROCESS_COMMAND_LINE = 60  # ProcessCommandLineInformation, Windows 8.1 and newer

_kernel = ctypes.WinDLL("kernel32", use_last_error=True)
_native = ctypes.WinDLL("ntdll")
_size = ctypes.c_size_t


class _Text(ctypes.Structure):  # UNICODE_STRING; lengths in bytes
    _fields_ = (
        ("length", wintypes.USHORT),
        ("room", wintypes.USHORT),
        ("letters", ctypes.c_void_p),
    )

    def __str__(self) -> str:
        return ctypes.wstring_at(self.letters, self.length // 2) if self.letters else ""


class _Attributes(ctypes.Structure):  # OBJECT_ATTRIBUTES
    _fields_ = (
        ("bytes", wintypes.ULONG),
        ("root", wintypes.HANDLE),
        ("name", ctypes.POINTER(_Text)),
        ("attributes", wintypes.ULONG),
        ("security", ctypes.c_void_p),
        ("quality", ctypes.c_void_p),
    )


class _Entry(ctypes.Structure):  # OBJECT_DIRECTORY_INFORMATION
    _fields_ = (("name", _Text), ("type", _Text))


class _Section(ctypes.Structure):  # SECTION_BASIC_INFORMATION
    _fields_ = (("base", ctypes.c_void_p), ("attributes", wintypes.ULONG), ("bytes", ctypes.c_int64))


class _Object(ctypes.Structure):  # PUBLIC_OBJECT_BASIC_INFORMATION
    _fields_ = (
        ("attributes", wintypes.ULONG),
        ("access", wintypes.DWORD),
        ("handles", wintypes.ULONG),
        ("pointers", wintypes.ULONG),
        ("reserved", wintypes.ULONG * 10),
    )


class _Memory(ctypes.Structure):  # MEMORY_BASIC_INFORMATION
    _fields_ = (
        ("base", ctypes.c_void_p),
        ("allocation", ctypes.c_void_p),
        ("allocation_protect", wintypes.DWORD),
        ("bytes", _size),
        ("state", wintypes.DWORD),
        ("protect", wintypes.DWORD),
        ("type", wintypes.DWORD),
    )


_kernel.OpenFileMappingW.restype = wintypes.HANDLE
_kernel.OpenFileMappingW.argtypes = wintypes.DWORD, wintypes.BOOL, wintypes.LPCWSTR
_kernel.OpenProcess.restype = wintypes.HANDLE
_kernel.OpenProcess.argtypes = wintypes.DWORD, wintypes.BOOL, wintypes.DWORD
_kernel.CloseHandle.argtypes = (wintypes.HANDLE,)
_kernel.MapViewOfFile.restype = ctypes.c_void_p
_kernel.MapViewOfFile.argtypes = wintypes.HANDLE, wintypes.DWORD, wintypes.DWORD, wintypes.DWORD, _size
_kernel.UnmapViewOfFile.argtypes = (ctypes.c_void_p,)
_kernel.VirtualQuery.restype = _size
_kernel.VirtualQuery.argtypes = ctypes.c_void_p, ctypes.POINTER(_Memory), _size
_kernel.QueryFullProcessImageNameW.argtypes = (
    wintypes.HANDLE,
    wintypes.DWORD,
    wintypes.LPWSTR,
    ctypes.POINTER(wintypes.DWORD),
)
_kernel.ProcessIdToSessionId.argtypes = wintypes.DWORD, ctypes.POINTER(wintypes.DWORD)
_native.NtOpenDirectoryObject.argtypes = (
    ctypes.POINTER(wintypes.HANDLE),
    wintypes.DWORD,
    ctypes.POINTER(_Attributes),
)
_native.NtQueryDirectoryObject.argtypes = (
    wintypes.HANDLE,
    ctypes.c_void_p,
    wintypes.ULONG,
    wintypes.BOOLEAN,
    wintypes.BOOLEAN,
    ctypes.POINTER(wintypes.ULONG),
    ctypes.POINTER(wintypes.ULONG),
)
for _ask in (_native.NtQueryObject, _native.NtQueryInformationProcess):
    _ask.argtypes = (
        wintypes.HANDLE,
        ctypes.c_int,
        ctypes.c_void_p,
        wintypes.ULONG,
        ctypes.POINTER(wintypes.ULONG),
    )
_native.NtQuerySection.argtypes = (
    wintypes.HANDLE,
    ctypes.c_int,
    ctypes.c_void_p,
    _size,
    ctypes.POINTER(_size),
)


def _check(status: int, what: str) -> None:
    """Raises OSError for the status of a function of ntdll, unless it is a success."""
    if status < 0:
        error = ctypes.WinError(_native.RtlNtStatusToDosError(status))
        error.filename = what
        raise error


def survey() -> list[Segment]:
    """This user's sections in this session that the library made, without the processes that use them.

    Raises
    ------
    OSError
        The system does not list the session's objects.
    """
    found = (_segment(match) for name in _names() if (match := _OURS.fullmatch(name)))
    return sorted((each for each in found if each is not None), key=lambda segment: segment.id)


def users(segments: list[Segment], arenas: list[dict[str, Any]], but: int = 0) -> list[Process]:
    """The processes that use arenas. The segments are told which of them use each.

    Parameters
    ----------
    segments : list of Segment
        From `survey`. Those that `but` alone uses are removed.
    arenas : list of dict
        Reports on the arenas whose first segments are among them. Those that `but` alone uses are removed.
    but : int, optional
        A process that is left out.
    """
    processes: dict[int, Process] = {}
    for arena in arenas[:]:
        living = [each["pid"] for each in arena.get("participants", ()) if each["state"] != "dead"]
        others = [pid for pid in living if pid != but]
        alone = living == [but]
        if alone:
            arenas.remove(arena)
        for segment in segments[:]:
            if segment.id == arena["segment"] or _extends(segment, arena):
                if alone:
                    segments.remove(segment)
                segment.processes = others
                for pid in others:
                    processes.setdefault(pid, Process(pid, _command(pid))).segments.append(segment.id)
    return list(processes.values())


def _extends(segment: Segment, arena: dict[str, Any]) -> bool:
    """Whether the arena has grown by this segment: such tags follow on the first half of the arena's name."""
    return "error" not in arena and 0 < segment.tag - int(arena["arena"][:16], 16) < arena["segments"]


def _names() -> Iterator[str]:
    """The names of the sections in the directory of this session's objects."""
    session = wintypes.DWORD()
    if not _kernel.ProcessIdToSessionId(os.getpid(), ctypes.byref(session)):
        raise ctypes.WinError(ctypes.get_last_error())
    path = rf"\Sessions\{session.value}\BaseNamedObjects" if session.value else r"\BaseNamedObjects"
    letters = ctypes.create_unicode_buffer(path)
    text = _Text(2 * len(path), 2 * len(path), ctypes.addressof(letters))
    attributes = _Attributes(ctypes.sizeof(_Attributes), None, ctypes.pointer(text), 0, None, None)
    directory = wintypes.HANDLE()
    _check(
        _native.NtOpenDirectoryObject(ctypes.byref(directory), _DIRECTORY_QUERY, ctypes.byref(attributes)),
        path,
    )
    try:
        room = ctypes.create_string_buffer(1 << 17)  # for one entry, whose name may take half of it
        place, used = wintypes.ULONG(0), wintypes.ULONG()
        while True:
            status = _native.NtQueryDirectoryObject(
                directory, room, len(room), True, False, ctypes.byref(place), ctypes.byref(used)
            )
            if status & 0xFFFFFFFF == _STATUS_NO_MORE_ENTRIES:
                return
            _check(status, path)
            entry = _Entry.from_buffer(room)
            if str(entry.type) == "Section":
                yield str(entry.name)
    finally:
        _kernel.CloseHandle(directory)


def _segment(match: re.Match[str]) -> Segment | None:
    """A section by its name; None if it has gone, or is another user's."""
    section = _kernel.OpenFileMappingW(_FILE_MAP_READ | _SECTION_QUERY, False, rf"Local\{match[0]}")
    if not section:
        return None
    try:
        basic, counts = _Section(), _Object()
        _check(_native.NtQuerySection(section, 0, ctypes.byref(basic), ctypes.sizeof(basic), None), match[0])
        _check(_native.NtQueryObject(section, 0, ctypes.byref(counts), ctypes.sizeof(counts), None), match[0])
        return Segment(
            id=int(match["number"] or match["id"], 16),
            backing="section",
            kind="names" if match["number"] else "arena",
            bytes=basic.bytes,
            resident_bytes=_committed(section, basic.bytes),
            swapped_bytes=None,
            attached=counts.handles - 1,  # but for the one that was opened here
            creator=None,
            removed=True,
            tag=int(match["tag"] or "0", 16),
        )
    finally:
        _kernel.CloseHandle(section)


def _committed(section: int, nbytes: int) -> int | None:
    """Bytes of a section that are committed; None if there is no room to map it."""
    base = _kernel.MapViewOfFile(section, _FILE_MAP_READ, 0, 0, 0)
    if not base:
        return None
    try:
        at = committed = 0
        part = _Memory()
        while at < nbytes and _kernel.VirtualQuery(base + at, ctypes.byref(part), ctypes.sizeof(part)):
            if part.state == _MEM_COMMIT:
                committed += part.bytes
            at += part.bytes
        return committed
    finally:
        _kernel.UnmapViewOfFile(base)


def _command(pid: int) -> str:
    """The command line of a process, shortened, or else its program; empty if the system tells neither."""
    process = _kernel.OpenProcess(_QUERY_LIMITED_INFORMATION, False, pid)
    if not process:
        return ""
    try:
        room = ctypes.create_string_buffer(1 << 17)
        status = _native.NtQueryInformationProcess(
            process, _PROCESS_COMMAND_LINE, room, len(room), ctypes.byref(wintypes.ULONG())
        )
        text = str(_Text.from_buffer(room)) if status >= 0 else _program(process)
        text = " ".join(text.split())
        return text if len(text) <= 100 else text[:97] + "..."
    finally:
        _kernel.CloseHandle(process)


def _program(process: int) -> str:
    """The file of the program that a process runs."""
    room = ctypes.create_unicode_buffer(1 << 15)
    size = wintypes.DWORD(len(room))
    return room.value if _kernel.QueryFullProcessImageNameW(process, 0, room, ctypes.byref(size)) else ""
