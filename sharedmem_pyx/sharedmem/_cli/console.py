"""Sizes and tables, for all commands of ``python -m sharedmem``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from sharedmem._sizes import read_size


def parse_bytes(text: str) -> int:
    """Bytes meant by `text`: ``"4096"``, ``"64MiB"``, ``"1.5 G"`` (1024s) or ``"1GB"`` (1000s).

    Raises
    ------
    ValueError
        `text` is not a size, or none that an array can have.
    """
    nbytes = read_size(text.strip())
    if nbytes is None:
        raise ValueError(f"{text!r} is not a size such as 64MiB or 1GiB")
    if not 0 < nbytes < 2**63:
        raise ValueError(f"{text!r} is not a size that an array can have")
    return nbytes


def format_bytes(nbytes: float) -> str:
    """`nbytes` in the unit that leaves one to four digits before the point."""
    if nbytes < 1024:
        return f"{nbytes:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        nbytes /= 1024
        if nbytes < 1000:
            return f"{nbytes:.{2 if nbytes < 10 else 1}f} {unit}"
    return f"{nbytes / 1024:,.2f} TiB"


def format_seconds(seconds: float) -> str:
    """`seconds` in the unit that leaves a small number; empty for 0, which says nothing."""
    if seconds <= 0:
        return ""
    for limit, unit, size in ((100, "s", 1), (6000, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a table; by rich where it is installed, no wider than the terminal, else as aligned plain text.

    Parameters
    ----------
    title : str
        Line above the table.
    columns : sequence of str
        Headings; one that starts with ``">"`` has its column set to the right.
    rows : iterable of sequences
        Cells, printed as `str` has them.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    right = [heading.startswith(">") for heading in columns]
    headings = [heading.lstrip(">") for heading in columns]
    try:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        _print_plain(title, headings, right, cells)
        return
    console = Console(file=sys.stdout)
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    # Where the terminal is narrow, the last column gives way first, then rich breaks the other columns of
    # text into lines. Numbers stay whole.
    for i, (heading, to_right) in enumerate(zip(headings, right, strict=True)):
        whole = to_right or i == len(headings) - 1
        table.add_column(heading, justify="right" if to_right else "left", no_wrap=whole, overflow="fold")
    shorten_last(headings, cells, console.width)
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    console.print(Text(title, style="bold"))
    console.print(table)


def shorten_last(headings: Sequence[str], cells: Sequence[list[str]], width: int) -> None:
    """Shortens the last cell of each row, so that the others have room in lines of `width` columns."""
    from rich.cells import cell_len, set_cell_size

    widths = [max(map(cell_len, column)) for column in zip(headings, *cells, strict=True)]
    room = max(width - sum(widths[:-1]) - 2 * len(widths) + 1, len(headings[-1]), 12)
    for row in cells:
        if cell_len(row[-1]) > room:
            row[-1] = set_cell_size(row[-1], room - 3).rstrip() + "..."


def print_text(text: str) -> None:
    """Prints a sentence; by rich where it is installed, in lines no wider than the terminal."""
    try:
        from rich.console import Console
        from rich.text import Text
    except ImportError:
        print(text)
        return
    Console(file=sys.stdout).print(Text(text))


def print_plain(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """The same, always as aligned plain text."""
    cells = [[str(cell) for cell in row] for row in rows]
    right = [heading.startswith(">") for heading in columns]
    _print_plain(title, [heading.lstrip(">") for heading in columns], right, cells)


def _print_plain(title: str, headings: list[str], right: list[bool], cells: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    print(title)
    for line in [headings, *cells]:
        padded = (
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        )
        print("  " + "  ".join(padded).rstrip())
