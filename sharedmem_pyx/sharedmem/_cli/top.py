"""``python -m sharedmem top``: what arenas hold, refreshed until it is ended."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sharedmem._cli import keys
from sharedmem._cli.console import format_bytes, shorten_last
from sharedmem._cli.info import NAME_COLUMNS, QUEUE_COLUMNS, gather, name_rows, queue_rows, touched_cells

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_ARENA_COLUMNS = (">segment", "kind", ">in memory", ">kept warm", ">in flight", ">leases", ">processes")
_PROCESS_COLUMNS = (">pid", ">touched", ">share", ">owns", ">in flight", "state", "command")
_NAME_COLUMNS = (*NAME_COLUMNS[:6], ">held by", NAME_COLUMNS[7])  # a number: pids take much room


def run(interval: float) -> int:
    """Shows what is in use each `interval` seconds, until ``q``, Ctrl-C or SIGTERM; returns the exit status.

    Where standard output is no terminal, or one that cannot be drawn on, it is printed once, as plain text.
    """
    if not sys.stdout or not sys.stdout.isatty() or os.environ.get("TERM") in ("dumb", "unknown"):
        _print_once()
        return 0
    from rich.live import Live

    # As an exception, on which the terminal becomes what it was.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with keys.quitting() as pressed:
        live = Live(_screen(gather(), interval), screen=True, auto_refresh=False)
        try:  # not as a context manager: the signal may come while the screen is changed
            live.start(refresh=True)
            while not pressed(interval):
                live.update(_screen(gather(), interval), refresh=True)
        except KeyboardInterrupt:
            pass
        finally:
            live.stop()
    return 0


def arena_rows(found: dict[str, Any]) -> list[tuple[object, ...]]:
    """A row for each arena."""
    segments = {segment.id: segment for segment in found["segments"]}
    rows: list[tuple[object, ...]] = []
    for arena in found["arenas"]:
        segment = segments[arena["segment"]]
        if "error" in arena:
            rows.append((segment.id, "cannot be read", "", "", "", "", ""))
            continue
        rows.append(
            (
                segment.id,
                segment.kind,
                format_bytes((segment.resident_bytes or 0) + (segment.swapped_bytes or 0)),
                format_bytes(arena["cached_bytes"]),
                format_bytes(arena["bytes_in_flight"]),
                arena["leases"],
                len(arena["participants"]),
            )
        )
    return rows


def process_rows(found: dict[str, Any]) -> list[tuple[object, ...]]:
    """A row for each process, those that touched most first, and those of the dead."""
    owned: dict[int, int] = {}
    in_flight: dict[int, int] = {}
    state: dict[int, str] = {}
    for arena in found["arenas"]:
        for each in arena.get("participants", ()):
            pid = each["pid"]
            owned[pid] = owned.get(pid, 0) + each["bytes"]
            in_flight[pid] = in_flight.get(pid, 0) + each["bytes_in_flight"]
            state[pid] = each["state"]
    rows: list[tuple[object, ...]] = [
        (
            process.pid,
            *touched_cells(process),
            format_bytes(owned.pop(process.pid, 0)),
            format_bytes(in_flight.get(process.pid, 0)),
            state.get(process.pid, ""),
            process.command,
        )
        for process in sorted(found["processes"], key=lambda each: -(each.resident_bytes or 0))
    ]
    rows += [
        (pid, "", "", format_bytes(nbytes), format_bytes(in_flight[pid]), state[pid], "")
        for pid, nbytes in owned.items()
    ]
    return rows


def _tables(found: dict[str, Any]) -> list[tuple[str, Sequence[str], list[tuple[object, ...]]]]:
    names = [name for arena in found["arenas"] for name in arena.get("names") or ()]
    rows = zip(name_rows(names), names, strict=True)
    queues = [queue for arena in found["arenas"] for queue in arena.get("queues", ())]
    return [
        ("Arenas", _ARENA_COLUMNS, arena_rows(found)),
        ("Processes: bytes they touched, their share of these", _PROCESS_COLUMNS, process_rows(found)),
        ("Names", _NAME_COLUMNS, [(*row[:6], len(name.processes), row[7]) for row, name in rows]),
        ("Queues", QUEUE_COLUMNS, queue_rows(queues)),
    ]


def _print_once() -> None:
    from sharedmem._cli.console import print_plain

    found = gather()
    for title, columns, rows in _tables(found):
        if rows:
            print_plain(title, columns, rows)
        else:
            print(f"{title.partition(':')[0]}: none")


def _screen(found: dict[str, Any], interval: float) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [
        Text(
            f"sharedmem of {found['user']}, {time.strftime('%H:%M:%S')}, each {interval:g} s; q quits",
            style="bold",
            no_wrap=True,
        )
    ]
    for title, columns, rows in _tables(found):
        parts.append(Text(""))
        parts.append(
            _table(title, columns, rows) if rows else Text(f"{title.partition(':')[0]}: none", style="bold")
        )
    return Group(*parts)


def _table(title: str, columns: Sequence[str], rows: list[tuple[object, ...]]) -> Table:
    from rich import get_console
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        title=Text(title, style="bold"),
        title_justify="left",
    )
    for number, heading in enumerate(columns):
        last = number == len(columns) - 1  # where the terminal is narrow, it gives way
        table.add_column(
            heading.lstrip(">"),
            justify="right" if heading.startswith(">") else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if last and not heading.startswith(">") else None,
            min_width=8 if last else len(heading.lstrip(">")),
        )
    cells = [[str(cell) for cell in row] for row in rows]
    shorten_last([heading.lstrip(">") for heading in columns], cells, get_console().width)
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    return table
