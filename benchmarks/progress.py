"""Tells how far the measurements are: by rich on a terminal, else in plain lines."""

from __future__ import annotations

import sys
from typing import Any


class Progress:
    """Plain lines, one for each measurement; a context manager."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def show(self, case: str, contender: str, number: int) -> None:
        print(
            f"[{self.done + 1}/{self.total}] {case}: {contender}, round {number}",
            file=sys.stderr,
            flush=True,
        )

    def advance(self, steps: int) -> None:
        self.done += steps

    def problem(self, case: str, contender: str, text: str) -> None:
        print(f"  {case}: {contender}: {text}", file=sys.stderr, flush=True)


class RichProgress(Progress):
    """One bar with the remaining time."""

    def __init__(self, total: int) -> None:
        from rich.progress import Progress as Bar

        super().__init__(total)
        self.bar: Any = Bar(*Bar.get_default_columns(), transient=True)
        self.task = self.bar.add_task("", total=total)

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def show(self, case: str, contender: str, number: int) -> None:
        text = f"{case}: {contender}, round {number}"
        self.bar.update(self.task, description=f"{text:<48}")

    def advance(self, steps: int) -> None:
        self.bar.advance(self.task, steps)

    def problem(self, case: str, contender: str, text: str) -> None:
        self.bar.console.print(f"{case}: {contender}: {text}", markup=False)


def progress(total: int) -> Progress:
    """A display for `total` measurements that suits where output goes."""
    if sys.stderr.isatty():
        try:
            return RichProgress(total)
        except ImportError:
            pass
    return Progress(total)
