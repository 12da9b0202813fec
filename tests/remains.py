"""What a test may leave behind: processes, System V segments, files in /dev/shm.

A test is compared with its own start. What belongs to processes outside the test run is ignored:
other programs, of other pid namespaces too, may make and drop segments and files at the same time.
The kernel keeps the pid of a segment's maker. It keeps none of a file's, so that a file counts if a process
of the run has it mapped or open, or if its name has the pid of one, as those of joblib and torch have.
"""

import contextlib
import gc
import multiprocessing
import multiprocessing.forkserver
import os
import re
import signal
import subprocess
import time
from typing import NamedTuple

import sharedmem  # at the start: the arena that importing it makes belongs to no test

# Seconds for processes that are about to end by themselves: longer than a process lingers on a busy machine.
GRACE = 60.0


class Process(NamedTuple):
    """A process, told from a later one with the same pid by its start time."""

    pid: int
    start: int


class Memory(NamedTuple):
    """A segment or a file in /dev/shm; `number` is what /proc/PID/maps calls its inode."""

    kind: str
    number: int
    name: str


# The pids of all processes of this test run that were ever seen.
family = {os.getpid()}


class Snapshot:
    """What there is now."""

    def __init__(self):
        self.children = {child for child, state in descendants().items() if state != "Z"}
        self.memory = segments() | files()
        self.arena = sharedmem.stats()["segments"]


def left_since(before, grace=GRACE):
    """Descriptions of what came since `before` and does not go; children among it are killed."""
    if Snapshot().__dict__ == before.__dict__:
        return []
    end = time.monotonic() + grace
    while True:
        tidy()
        left = differences(before)
        if not left or time.monotonic() > end:
            break
        time.sleep(0.05)
    for child in new_children(before):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
    reap(before)
    return left


def tidy():
    """Drops garbage and what is known to be over, so that only what is really left is counted."""
    gc.collect()
    multiprocessing.active_children()
    sharedmem.collect()


def differences(before):
    """One line for each thing that is new since `before` and ours."""
    reap(before)
    lines = [f"process {child.pid}: {command(child.pid)}" for child in new_children(before)]
    new = (segments() | files()) - before.memory
    if new:
        ours, others = used_by(before)
        left = [m for m in new if m[:2] in ours or (m[:2] not in others and is_named_after_us(m))]
        left = without_extensions(left, before)
        lines += sorted(f"{memory.kind} {memory.name}" for memory in left)
    return lines


def without_extensions(left, before):
    """`left` without as many segments as the arena of this process has grown by: it keeps them."""
    grown = sharedmem.stats()["segments"] - before.arena
    mine = used()
    extensions = [memory for memory in left if memory[:2] in mine][:grown]
    return [memory for memory in left if memory not in extensions]


def new_children(before):
    """Living descendants that were not there; servers that multiprocessing keeps do not count."""
    return {
        child
        for child, state in descendants().items()
        if state != "Z" and child not in before.children and not is_server(child.pid)
    }


def is_server(pid):
    """Whether multiprocessing (or loky) keeps this process for later use."""
    if pid == multiprocessing.forkserver._forkserver._forkserver_pid:
        return True
    return "resource_tracker" in command(pid)


def descendants():
    """{Process: state letter} of all processes below this one, zombies too."""
    parent, found = {}, {}
    for pid in pids():
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        parent[pid] = int(fields[1])
        found[pid] = (Process(pid, int(fields[19])), fields[0].decode())
    below = {child: state for pid, (child, state) in found.items() if is_below(pid, parent)}
    family.update(child.pid for child in below)
    return below


def is_below(pid, parent):
    me = os.getpid()
    while pid in parent:
        pid = parent[pid]
        if pid == me:
            return True
    return False


def pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def reap(before):
    """Takes the exit status of children for which the tests do not wait any more."""
    subprocess._cleanup()
    for child, state in descendants().items():
        if state == "Z" and child not in before.children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child.pid, os.WNOHANG)


def command(pid):
    """Command line of a process, shortened; empty when it has ended."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return ""
    return b" ".join(words).decode(errors="replace")[:200]


def segments():
    """The System V segments of this user, except those that a process outside the test run made.

    The maker's pid is 0 if it belongs to another pid namespace. One that has ended may have been ours.
    """
    me = os.geteuid()
    with open("/proc/sysvipc/shm") as file:
        next(file)
        rows = [line.split() for line in file]
    strangers = {0, *pids()} - {child.pid for child in descendants()} - {os.getpid()}
    return {
        Memory("segment", int(row[1]), row[1])
        for row in rows
        if int(row[9]) == me and int(row[4]) not in strangers
    }


def is_named_after_us(memory):
    """Whether the name of a file says that a process of the test run made it; true of a segment."""
    numbers = re.findall("(?<![0-9A-Za-z])[0-9]+(?![0-9A-Za-z])", memory.name)
    return memory.kind == "segment" or any(int(number) in family for number in numbers)


def files():
    """The files of this user in /dev/shm."""
    me, found = os.geteuid(), set()
    with contextlib.suppress(FileNotFoundError), os.scandir("/dev/shm") as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if status.st_uid == me:
                    found.add(Memory("file", status.st_ino, entry.name))
    return found


def used_by(before):
    """({what the test's processes use}, {what others use}), as pairs (kind, number).

    A child that was there before the test, such as a worker that several tests use, is one of
    the others: what it keeps is not the test's.
    """
    ours, others = set(), set()
    test = {child.pid for child in descendants().keys() - before.children} | {os.getpid()}
    for pid in pids():
        with contextlib.suppress(OSError):
            (ours if pid in test else others).update(used(pid))
    return ours, others


def used(pid="self"):
    """What a process has mapped or open, as pairs (kind, number)."""
    found = set()
    with open(f"/proc/{pid}/maps") as maps:
        for line in maps:
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and fields[5].startswith("/SYSV"):
                found.add(("segment", int(fields[4])))
            elif len(fields) == 6 and fields[5].startswith("/dev/shm/"):
                found.add(("file", int(fields[4])))
    with os.scandir(f"/proc/{pid}/fd") as descriptors:
        for descriptor in descriptors:
            with contextlib.suppress(OSError):
                if os.readlink(descriptor.path).startswith("/dev/shm/"):
                    found.add(("file", os.stat(descriptor.path).st_ino))
    return found
