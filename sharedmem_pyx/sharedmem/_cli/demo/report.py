"""Shows progress, and the table at the end."""

from __future__ import annotations

import sys
import time

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from sharedmem._cli.console import format_bytes
from sharedmem._cli.demo.contest import Result

_PHASES = ("filling", "working", "checking")


class Screen:
    """Progress on standard error: bars on a terminal, else a line for each step.

    No thread draws the bars: processes are forked while they are on screen, and a fork copies
    no other thread but the locks it holds.
    """

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description:<21}"),
            TextColumn("{task.fields[phase]:<8}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            console=console,
            auto_refresh=False,
            transient=True,
            expand=True,
        )
        self._live = console.is_terminal
        self._task: TaskID | None = None
        self._phases: tuple[str, ...] = ()
        self._phase = ""
        self._drawn = 0.0

    def __enter__(self) -> Screen:
        if self._live:
            self._bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live:
            self._bars.stop()

    def begin(self, name: str, phases: int = len(_PHASES)) -> None:
        """A new bar, which goes through the first `phases` phases."""
        self.end()
        self._phases = _PHASES[:phases]
        self._phase = ""
        self._name = name
        self._task = self._bars.add_task(name, total=phases, phase="")

    def end(self) -> None:
        """The newest bar has come to its end."""
        if self._task is not None:
            self._bars.update(self._task, completed=len(self._phases), phase="done")
            self._bars.stop_task(self._task)
            self._draw(now=True)
            self._task = None

    def __call__(self, phase: str, share: float) -> None:
        """Phase `phase` of the newest bar has got as far as `share` of 1."""
        if self._task is None:
            return
        if phase != self._phase and not self._live:
            print(f"{self._name}: {phase}", file=sys.stderr, flush=True)
        new, self._phase = phase != self._phase, phase
        done = self._phases.index(phase) + share
        self._bars.update(self._task, completed=done, phase=phase)
        self._draw(now=new)

    def _draw(self, now: bool) -> None:
        clock = time.monotonic()
        if self._live and (now or clock > self._drawn + 0.1):
            self._bars.refresh()
            self._drawn = clock


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _bytes(value: int | None) -> str:
    return "" if value is None else format_bytes(value)


def print_results(data: str, how: str, results: list[Result]) -> None:
    """The table of `results`, below a line on the `data` and one on `how` it was worked on."""
    print(data)
    print(how)
    print()
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("")
    for heading in ("bytes sent", "fill s", "work s", "check s", "memory"):
        table.add_column(heading, justify="right")
    table.add_column("result")
    for result in results:
        table.add_row(
            result.name,
            _bytes(result.bytes_sent),
            *map(_seconds, (result.fill, result.work, result.check)),
            _bytes(result.memory),
            _verdict(result),
            style="bold" if result.name == "sharedmem" else "",
        )
    Console().print(table)
    print()


def _verdict(result: Result) -> Text:
    if result.wrong:
        return Text("WRONG", style="red")
    return Text("" if result.wrong is None else "equal", style="green")
