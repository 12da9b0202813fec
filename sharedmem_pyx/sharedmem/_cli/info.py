"""``python -m sharedmem info``: the shared memory of this user, and who uses it."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import sharedmem
from sharedmem import NameInfo
from sharedmem._cli.console import format_bytes, format_seconds, print_table, print_text
from sharedmem._cli.segments import Process, Segment, find_memfd, survey
from sharedmem._reports import inspect_arena

if sys.platform == "win32":
    from sharedmem._cli import sections
else:
    import pwd


def run(as_json: bool = False) -> int:
    """Prints what `gather` finds, as tables or as one JSON object; returns the exit status."""
    found = gather()
    if as_json:
        found["segments"] = [asdict(segment) for segment in found["segments"]]
        found["processes"] = [asdict(process) for process in found["processes"]]
        for arena in found["arenas"]:
            if arena.get("names") is not None:
                arena["names"] = [_plain(name) for name in arena["names"]]
        print(json.dumps(found, indent=2))
    else:
        _print(found)
    return 0


def gather() -> dict[str, Any]:
    """Segments, processes and arenas of this user, but for what this process alone uses.

    Returns
    -------
    dict
        ``version``, ``user``, ``uid`` (None on Windows); ``segments`` and ``processes`` as `segments.survey`
        or the functions of `sections` give them; ``arenas``, each as `inspect_arena` describes it, with the
        id of its first ``segment``, or with the ``error`` that came up instead.
    """
    user, uid = _user()
    if sys.platform == "win32":
        segments = sections.survey()
        arenas = _arenas(segments)
        processes = sections.users(segments, arenas, but=os.getpid())
    else:
        segments, processes = survey(os.geteuid(), but=os.getpid())
        arenas = _arenas(segments)
    return {
        "version": sharedmem.__version__,
        "user": user,
        "uid": uid,
        "segments": segments,
        "processes": processes,
        "arenas": arenas,
    }


def _arenas(segments: Iterable[Segment]) -> list[dict[str, Any]]:
    """The arenas whose first segments are among these."""
    return [arena for segment in segments if (arena := _look_at(segment)) is not None]


def _plain(name: NameInfo) -> dict[str, Any]:
    """A name as JSON has it."""
    return {**asdict(name), "dtype": None if name.dtype is None else str(name.dtype), "kind": name.kind}


def _look_at(segment: Segment) -> dict[str, Any] | None:
    """The arena whose first segment this is; None if it is not, or was removed meanwhile."""
    if segment.kind not in ("arena", "names") or segment.orphan:
        return None
    where = segment.id, 0, segment.tag
    if segment.backing == "memfd":
        found = find_memfd(segment.processes, segment.id)
        if found is None:
            return None
        where = found
    try:
        arena = inspect_arena(segment.backing, *where)
    except sharedmem.StaleHandleError:
        return None
    except (OSError, RuntimeError) as error:
        return {"segment": segment.id, "error": str(error)}
    return arena and {"segment": segment.id, **arena}


def _user() -> tuple[str, int | None]:
    """The user's name and, where there is one, number."""
    if sys.platform == "win32":
        return getpass.getuser(), None
    else:
        uid = os.geteuid()
        try:
            return pwd.getpwuid(uid).pw_name, uid
        except KeyError:
            return str(uid), uid


def _print(found: dict[str, Any]) -> None:
    user = found["user"]
    if found["segments"]:
        print_table(
            f"Shared-memory segments of {user}",
            (">id", "kind", ">size", ">in memory", ">attached", ">made by", "goes"),
            [_segment_row(segment) for segment in found["segments"]],
        )
    else:
        print_text(f"No shared-memory segments of {user}, but for those that this command made itself.")
    if found["processes"]:
        print()
        print_table(
            "Processes that use sharedmem: bytes they touched; their share of these",
            (">pid", "segments", ">touched", ">share", "command"),
            [_process_row(process) for process in found["processes"]],
        )
    commands = {process.pid: process.command for process in found["processes"]}
    for arena in found["arenas"]:
        print()
        _print_arena(arena, commands)


def _segment_row(segment: Segment) -> tuple[object, ...]:
    if segment.orphan:
        goes = "with next maker"
    elif segment.removed:
        goes = "with last user"
    else:
        goes = "by ipcrm"  # no longer than a narrow terminal shows of it
    kind = f"{segment.kind} (memfd)" if segment.backing == "memfd" else segment.kind
    return (
        segment.id,
        kind,
        format_bytes(segment.bytes),
        "" if segment.resident_bytes is None else format_bytes(segment.resident_bytes),
        segment.attached,
        "" if segment.creator is None else segment.creator,
        goes,
    )


def _few(ids: list[int]) -> str:
    """The first ids, and how many more there are."""
    more = f" +{len(ids) - 2}" if len(ids) > 2 else ""
    return ", ".join(map(str, ids[:2])) + more


def _process_row(process: Process) -> tuple[object, ...]:
    return (
        process.pid,
        _few(process.segments),
        *touched_cells(process),
        process.command,
    )


def touched_cells(process: Process) -> tuple[str, str]:
    """The bytes that a process has touched, and its share of them; empty where the system does not tell."""
    if process.resident_bytes is None or process.share_bytes is None:
        return "", ""
    return format_bytes(process.resident_bytes), format_bytes(process.share_bytes)


NAME_COLUMNS = ("state", ">since", "dtype", "shape", ">bytes", ">by pid", "held by", "name")


def name_rows(names: Iterable[NameInfo]) -> list[tuple[object, ...]]:
    """The cells of names under `NAME_COLUMNS`."""
    return [
        (
            name.state,
            format_seconds(name.seconds),
            _short(str(name.dtype) if name.kind == "array" else name.kind or "", 10),
            _short("x".join(map(str, name.shape or ())) or "()", 12) if name.kind == "array" else "",
            format_bytes(name.nbytes) if name.state == "ready" else "",
            name.pid,
            _few(list(name.processes)),
            name.name if name.name.isprintable() else ascii(name.name),
        )
        for name in names
    ]


QUEUE_COLUMNS = (">messages", ">bytes", ">kept", ">maxsize", ">since", "held by", "waiting")


def queue_rows(queues: Iterable[dict[str, Any]]) -> list[tuple[object, ...]]:
    """The cells of queues under `QUEUE_COLUMNS`."""
    return [
        (
            queue["messages"],
            format_bytes(queue["bytes"]),
            format_bytes(queue["kept"]),
            queue["maxsize"] or "",
            format_seconds(queue["seconds"]),
            _few(queue["processes"]),
            _sleepers(queue),
        )
        if queue["messages"] is not None
        else ("?", "?", format_bytes(queue["kept"]), "?", "", _few(queue["processes"]), "?")
        for queue in queues
    ]


def _sleepers(queue: dict[str, Any]) -> str:
    """What processes wait for in a queue, and which."""
    waits = (("get", "receivers"), ("put", "senders"), ("join", "joiners"))
    return "; ".join(f"{call} {_few(queue[name])}" for call, name in waits if queue[name])


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _print_arena(arena: dict[str, Any], commands: dict[int, str]) -> None:
    title = f"Arena of segment {arena['segment']}"
    if "error" in arena:
        print_text(f"{title} cannot be read: {arena['error']}")
        return
    print_table(
        f"{title}, {arena['arena']}: its participants",
        (">slot", ">pid", "state", ">chunks", ">of bytes", ">in flight", ">oldest", "command"),
        [
            (
                participant["slot"],
                participant["pid"],
                participant["state"],
                participant["chunks"],
                format_bytes(participant["bytes"]),
                format_bytes(participant["bytes_in_flight"]),
                format_seconds(participant["oldest_in_flight"]),
                commands.get(participant["pid"], ""),
            )
            for participant in arena["participants"]
        ],
    )
    if arena["names"]:
        print_table(
            f"Names in the arena of segment {arena['segment']}", NAME_COLUMNS, name_rows(arena["names"])
        )
    if arena["queues"]:
        print_table(
            f"Queues in the arena of segment {arena['segment']}", QUEUE_COLUMNS, queue_rows(arena["queues"])
        )
    oldest = format_seconds(arena["oldest_in_flight"])  # empty if queues alone have leases
    print_text(
        f"Free but kept warm {format_bytes(arena['cached_bytes'])}; "
        f"in flight {format_bytes(arena['bytes_in_flight'])} by {arena['leases']} leases"
        + (f", the oldest since {oldest}." if oldest else ".")
    )
