"""``python -m sharedmem info``: the shared memory of this user, and who uses it."""

from __future__ import annotations

import json
import os
import pwd
from dataclasses import asdict
from typing import Any

import sharedmem
from sharedmem.console import format_bytes, print_table
from sharedmem.segments import Process, Segment, survey


def run(as_json: bool = False) -> int:
    """Prints what `gather` finds, as tables or as one JSON object; returns the exit status."""
    found = gather()
    if as_json:
        found["segments"] = [asdict(segment) for segment in found["segments"]]
        found["processes"] = [asdict(process) for process in found["processes"]]
        print(json.dumps(found, indent=2))
    else:
        _print(found)
    return 0


def gather() -> dict[str, Any]:
    """Segments and processes of this user, and the arena of this process if others share it.

    Returns
    -------
    dict
        ``version``, ``user``, ``uid``; ``segments`` and ``processes`` as `segments.survey` gives
        them, without this process; ``arena`` as `sharedmem.stats` describes it and
        ``participants``, None and empty for a process that belongs to no tree of processes.
    """
    uid = os.geteuid()
    arena, participants = _own_arena()
    segments, processes = survey(uid, but=os.getpid())
    return {
        "version": sharedmem.__version__,
        "user": _user(uid),
        "uid": uid,
        "segments": segments,
        "processes": processes,
        "arena": arena,
        "participants": participants,
    }


def _own_arena() -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    if os.environ.get("SHAREDMEM_ARENA") and sharedmem.stats()["arena"] is None:
        sharedmem.empty(1)  # a process joins its parent's arena with its first array
    arena = dict(sharedmem.stats())
    if arena["arena"] is None:
        return None, []
    participants = [dict(participant) for participant in sharedmem.participants()]
    if all(participant["self"] for participant in participants):
        return None, []
    return arena, participants


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _print(found: dict[str, Any]) -> None:
    user = found["user"]
    if found["segments"]:
        print_table(
            f"Shared-memory segments of {user}",
            (">id", "kind", ">size", ">in memory", ">attached", ">made by", "goes"),
            [_segment_row(segment) for segment in found["segments"]],
        )
    else:
        print(f"No shared-memory segments of {user}, but for those that this command made itself.")
    if found["processes"]:
        print()
        print_table(
            "Processes that use sharedmem: bytes they touched; their share of these",
            (">pid", "segments", ">touched", ">share", "command"),
            [_process_row(process) for process in found["processes"]],
        )
    if found["arena"]:
        print()
        _print_arena(found["arena"], found["participants"])


def _segment_row(segment: Segment) -> tuple[object, ...]:
    if segment.orphan:
        goes = "when the next process makes one"
    elif segment.removed:
        goes = "with its last process"
    else:
        goes = f"by: ipcrm -m {segment.id}"
    kind = segment.kind if segment.backing == "sysv" else f"{segment.kind} ({segment.backing})"
    return (
        segment.id,
        kind,
        format_bytes(segment.bytes),
        format_bytes(segment.resident_bytes),
        segment.attached,
        segment.creator or "",
        goes,
    )


def _process_row(process: Process) -> tuple[object, ...]:
    return (
        process.pid,
        ", ".join(map(str, process.segments)),
        format_bytes(process.resident_bytes),
        format_bytes(process.share_bytes),
        process.command,
    )


def _print_arena(arena: dict[str, Any], participants: list[dict[str, Any]]) -> None:
    print_table(
        f"Participants of the arena of this process, {arena['arena']}",
        (">slot", ">pid", "state", ">chunks", ">bytes", ""),
        [
            (
                participant["slot"],
                participant["pid"],
                participant["state"],
                participant["chunks"],
                format_bytes(participant["bytes"]),
                "this process" if participant["self"] else "",
            )
            for participant in participants
        ],
    )
    print(
        f"In memory {format_bytes(arena['mapped_bytes'])}, of these cached "
        f"{format_bytes(arena['cached_bytes'])}; in flight {format_bytes(arena['bytes_in_flight'])} "
        f"by {arena['leases']} leases."
    )
