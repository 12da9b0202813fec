"""Memory that processes take, and how much of it there is."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def resident(pids: Iterable[int]) -> int | None:
    """Bytes resident for `pids` together; pages that several processes map count once.

    Returns
    -------
    int or None
        The sum of the proportional set sizes (Pss); None where the system doesn't tell.

    References
    ----------
    .. [1] Linux, Documentation/filesystems/proc.rst, /proc/PID/smaps_rollup.
    """
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            if not os.path.exists("/proc/self/smaps_rollup"):
                return None
            continue  # that process has just ended
        except OSError:
            return None
        for line in text.splitlines():
            if line.startswith(b"Pss:"):
                total += int(line.split()[1]) * 1024
    return total


class Peak:
    """The most bytes that some processes were seen to hold at once.

    Parameters
    ----------
    pids : sequence of int
        The processes.
    """

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = list(pids)
        self._next = 0.0
        self.nbytes: int | None = 0

    def look(self, now: bool = False) -> None:
        """Looks, unless that was done a moment ago and `now` is not set.

        A look walks page tables. The pause after it is twenty times as long as it took, so that
        the clock of what is being measured hardly notices.
        """
        start = time.monotonic()
        if self.nbytes is None or (start < self._next and not now):
            return
        seen = resident(self._pids)
        self.nbytes = None if seen is None else max(self.nbytes, seen)
        self._next = time.monotonic() + 20 * (time.monotonic() - start)

    def above(self, idle: int | None) -> int | None:
        """The most seen, less `idle`; looks once more."""
        self.look(now=True)
        return None if self.nbytes is None or idle is None else max(0, self.nbytes - idle)


def available() -> int:
    """Bytes that can be had: MemAvailable, or what the cgroups of this process leave of it."""
    best = 2**62
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                best = int(line.split()[1]) * 1024
        groups = os.fsdecode(Path("/proc/self/cgroup").read_bytes()).splitlines()
    except OSError:
        return best
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, names = Path("/sys/fs/cgroup"), ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            root = Path("/sys/fs/cgroup/memory")
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            best = min(best, _left(folder, *names))
            if folder == root:
                break
    return best


def _left(folder: Path, limit_name: str, usage_name: str) -> int:
    """Bytes the cgroup `folder` may still take; what its file cache holds can be reclaimed."""
    try:
        limit = int((folder / limit_name).read_text())
        usage = int((folder / usage_name).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # not there, or "max"
        return 2**62
    cache = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
    return max(0, limit - (usage - cache))


def array_folder(nbytes: int) -> str | None:
    """Folder in which multiprocessing.Array keeps `nbytes`; None: in none of them is room.

    It takes /dev/shm if that has room, else the folder for temporary files, without a look at
    the room there; a process that writes past the end of a full disk is killed.
    """
    for folder in ("/dev/shm", tempfile.gettempdir()):
        try:
            if shutil.disk_usage(folder).free >= nbytes + 2**20:
                return folder
        except OSError:
            continue
    return None


def start_afresh(nbytes: int) -> None:
    """Takes `nbytes` of memory, writes to them, and gives back all that this process does not use.

    A virtual machine may have handed free memory back to its host, and the first process to
    touch it again then pays far more than the next. After this, nobody does.
    """
    np.ones(nbytes, np.uint8)
    trim()


def trim() -> None:
    """Gives back what malloc keeps for later: it would count as memory that is in use."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc
    if malloc_trim is not None:
        malloc_trim(0)
