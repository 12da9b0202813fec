"""What the kernel reports on shared memory: segments of this user, and processes that map ours."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

#: Upper halves of the keys of our System V segments (cpp/src/os/os.hpp). A segment that is marked for
#: removal has lost its key, but /proc/PID/maps still names it by that.
_KEYS = {0x534D: "arena", 0x534E: "census"}
_OF_NAMES, _OF_NAMES_MASK = 0x53800000, 0xFF800000  # and of the arena of names, which has a tag in its size

_OURS = re.compile(
    r"/(?:SYSV(?P<key>53(?:4[de]|[89a-f][0-9a-f])[0-9a-f]{4})"
    r"|memfd:sharedmem:(?P<tag>[0-9a-f]+)) \(deleted\)$"
)

_MEMFD = "/memfd:sharedmem:"

_SHM_DEST = 0o1000  # linux/shm.h: removed with the last detach


@dataclass
class Segment:
    """A kernel shared-memory object.

    Attributes
    ----------
    id : int
        shmid, a memfd's inode number, or the last number in a section's name.
    backing : str
        ``"sysv"``, ``"memfd"`` or, on Windows, ``"section"``.
    kind : str
        ``"arena"`` (arrays), ``"names"`` (arrays that have names), ``"census"`` (a page by whose
        attachments the kernel counts processes),
        ``"other"`` (not ours).
    bytes : int
        Size, mostly never touched.
    resident_bytes, swapped_bytes : int or None
        What of it takes memory, and swap space; None: unknown. On Windows what is committed takes memory.
    attached : int
        Attachments; on Windows open handles.
    creator : int or None
        Process that made it; None: unknown, as on Windows and for a memfd.
    removed : bool
        Whether it is marked for removal, so that the kernel takes it back with its last process.
    orphan : bool
        Ours, and left by a process that was killed while it made it; the next process of ours that makes
        a segment removes it.
    processes : list of int
        Processes of this user that map it; for our segments only.
    tag : int
        The other number in a section's name; 0: it has none.
    """

    id: int
    backing: str
    kind: str
    bytes: int
    resident_bytes: int | None
    swapped_bytes: int | None
    attached: int
    creator: int | None
    removed: bool
    orphan: bool = False
    processes: list[int] = field(default_factory=list)
    tag: int = 0


@dataclass
class Process:
    """A process that maps our segments.

    Attributes
    ----------
    pid : int
        Its number.
    command : str
        Its command line, shortened.
    segments : list of int
        The segments' ids.
    resident_bytes : int or None
        Bytes of them that this process has touched; None on Windows, which does not tell.
    share_bytes : int or None
        The same, each page divided by the number of processes that have touched it.
    """

    pid: int
    command: str
    segments: list[int] = field(default_factory=list)
    resident_bytes: int | None = None
    share_bytes: int | None = None


@dataclass(frozen=True)
class _Mapping:
    segment: int
    backing: str
    kind: str
    bytes: int
    rss: int
    pss: int


def survey(uid: int, but: int = 0) -> tuple[list[Segment], list[Process]]:
    """Segments of user `uid`, and the processes that map ours.

    Parameters
    ----------
    uid : int
        The user.
    but : int, optional
        A process that is left out, and the segments that it alone maps.
    """
    segments = {segment.id: segment for segment in _sysv_segments(uid)}
    processes: list[Process] = []
    mine: set[int] = set()
    for pid in _pids(uid):
        mappings = _mappings(pid)
        if pid == but:
            mine = {mapping.segment for mapping in mappings}
        elif mappings:
            process = Process(pid, _command(pid))
            for mapping in mappings:
                _add(segments, process, mapping)
            processes.append(process)
    for unshared in mine:
        if unshared in segments and not segments[unshared].processes:
            del segments[unshared]
    return sorted(segments.values(), key=lambda segment: segment.id), processes


def _add(segments: dict[int, Segment], process: Process, mapping: _Mapping) -> None:
    process.resident_bytes = (process.resident_bytes or 0) + mapping.rss
    process.share_bytes = (process.share_bytes or 0) + mapping.pss
    if mapping.segment not in process.segments:
        process.segments.append(mapping.segment)
    segment = segments.get(mapping.segment)
    if segment is None:
        if mapping.backing == "sysv":
            return  # it has just gone
        size, resident = _memfd_bytes(process.pid, mapping.segment)
        segment = Segment(
            mapping.segment, "memfd", "arena", size or mapping.bytes, resident, None, 0, None, removed=True
        )
        segments[mapping.segment] = segment
    segment.kind = mapping.kind
    if segment.backing == "memfd":
        segment.attached += 1
    if process.pid not in segment.processes:
        segment.processes.append(process.pid)


def _sysv_segments(uid: int) -> Iterator[Segment]:
    try:
        lines = Path("/proc/sysvipc/shm").read_text().splitlines()
    except OSError:
        return  # a kernel without System V memory
    names = lines[0].split()
    for line in lines[1:]:
        cell = dict(zip(names, line.split(), strict=False))
        if int(cell["uid"]) != uid:
            continue
        kind = _kind(int(cell["key"]) & 0xFFFFFFFF)
        removed = bool(int(cell["perms"], 8) & _SHM_DEST)
        if not _may_be_ours(kind, int(cell["perms"], 8), int(cell.get("rss", 0)), int(cell["size"])):
            kind = "other"
        attached = int(cell["nattch"])
        yield Segment(
            id=int(cell["shmid"]),
            backing="sysv",
            kind=kind,
            bytes=int(cell["size"]),
            resident_bytes=int(cell.get("rss", 0)),
            swapped_bytes=int(cell.get("swap", 0)),
            attached=attached,
            creator=int(cell["cpid"]),
            removed=removed,
            orphan=kind != "other" and not removed and attached == 0,
        )


def _kind(key: int) -> str:
    return "names" if key & _OF_NAMES_MASK == _OF_NAMES else _KEYS.get(key >> 16, "other")


def _may_be_ours(kind: str, perms: int, resident: int, size: int) -> bool:
    # Other programs may have such keys, too: ftok(3) makes them for files on some devices. Ours have a key
    # only until they are marked for removal; so early nothing is in them but the census's first bytes.
    if kind == "names":
        return perms & 0o777 == 0o600 and 0xF00 <= size % (2 << 20) < 0x1000
    return perms & 0o777 == 0o600 and (kind != "arena" or resident == 0)


def _pids(uid: int) -> Iterator[int]:
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == uid:
                yield int(name)
        except OSError:
            continue  # it has just ended


def _mappings(pid: int) -> list[_Mapping]:
    """Mappings of our segments in process `pid`."""
    try:
        if os.readlink(f"/proc/{pid}/ns/ipc") != os.readlink("/proc/self/ns/ipc"):
            return []  # its ids are not the ids here
        if not any(_OURS.search(line) for line in _lines(f"/proc/{pid}/maps")):
            return []  # smaps walks all page tables: only where there is something to see
        lines = _lines(f"/proc/{pid}/smaps")
    except OSError:
        return []
    found: list[_Mapping] = []
    sizes: dict[str, int] = {}
    ours: re.Match[str] | None = None
    inode = 0
    for line in [*lines, "0-0 end"]:
        if not re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            name, _, rest = line.partition(":")
            if ours and rest.endswith(" kB"):
                sizes[name] = int(rest[:-3]) * 1024
            continue
        if ours:
            kind = _kind(int(ours["key"], 16)) if ours["key"] else "arena"
            backing = "sysv" if ours["key"] else "memfd"
            found.append(_Mapping(inode, backing, kind, sizes["Size"], sizes["Rss"], sizes["Pss"]))
        sizes, ours = {}, _OURS.search(line)
        inode = int(line.split()[4]) if ours else 0
    return found


def _lines(path: str) -> list[str]:
    return Path(path).read_text(errors="replace").splitlines()


def find_memfd(pids: Iterable[int], inode: int) -> tuple[int, int, int] | None:
    """Descriptor, process and tag (the number in its name) of a memfd that one of `pids` has open."""
    for pid in pids:
        try:
            for name in os.listdir(f"/proc/{pid}/fd"):
                path = f"/proc/{pid}/fd/{name}"
                target = os.readlink(path)
                if target.startswith(_MEMFD) and os.stat(path).st_ino == inode:
                    return int(name), pid, int(target[len(_MEMFD) :].split()[0], 16)
        except OSError:
            continue  # it has just ended
    return None


def _memfd_bytes(pid: int, inode: int) -> tuple[int, int]:
    """Size and resident bytes of a memfd that `pid` has open; zeros where it can't be found."""
    found = find_memfd([pid], inode)
    try:
        status = os.stat(f"/proc/{pid}/fd/{found[0]}") if found else None
    except OSError:
        return 0, 0  # it has just ended
    return (status.st_size, status.st_blocks * 512) if status else (0, 0)


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    text = " ".join(" ".join(words).split())
    return text if len(text) <= 100 else text[:97] + "..."
