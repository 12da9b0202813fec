"""What a case, a sample, a goal and a plot are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

OWN = "sharedmem"
PEERS = "best peer"

#: Units of samples, and whether more of it is better.
MORE_IS_BETTER = {
    "s": False,
    "bytes": False,
    "ratio": False,
    "1/s": True,
    "times": True,
    "reached": True,
    "count": False,
}


@dataclass(frozen=True)
class Sample:
    """One measured value.

    Attributes
    ----------
    point : str
        What within the case was measured; equal for all contenders.
    value : float
        In units of `unit`, a key of `MORE_IS_BETTER`.
    x : float, optional
        Position on the plot's horizontal axis.
    series : str, optional
        Name of the plotted line, where one contender has several.
    plotted_only : bool, optional
        Too many of its kind for a table.
    note : str, optional
        What a reader must know about this value, such as why it stopped.
    """

    point: str
    value: float
    unit: str = "s"
    x: float | None = None
    series: str = ""
    plotted_only: bool = False
    note: str = ""


@dataclass(frozen=True)
class Amount:
    """How much of something a case uses: in full, and with ``--quick``."""

    full: int
    quick: int
    unit: str = "bytes"

    def of(self, quick: bool) -> int:
        return self.quick if quick else self.full


@dataclass(frozen=True)
class Setting:
    """What a measurement is told: the amounts, and how long to repeat."""

    quick: bool
    amounts: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, name: str) -> int:
        return self.amounts[name]

    @property
    def seconds(self) -> float:
        """How long to repeat a short statement."""
        return 0.02 if self.quick else 0.3

    def repeats(self, full: int, quick: int = 2) -> int:
        return quick if self.quick else full


@dataclass(frozen=True)
class Goal:
    """A bound on this library's value at one point, or on its ratio to another's.

    With `against` None the value itself is bounded. ``better_by`` asks how
    many times better than `against` it is, whichever way the unit points.
    """

    point: str
    against: str | None = None
    at_most: float | None = None
    at_least: float | None = None
    better_by: float | None = None

    def __str__(self) -> str:
        other = "" if self.against is None else f" x {self.against}"
        if self.at_most is not None:
            return f"at most {self.at_most:g}{other}"
        if self.at_least is not None:
            return f"at least {self.at_least:g}{other}"
        return f"{self.better_by:g} times better than {self.against}"


@dataclass(frozen=True)
class Plot:
    """Axes of a case's plot; every sample with an `x` is drawn."""

    x_label: str
    y_label: str
    x_log: bool = True
    y_log: bool = True


Measure = Callable[..., Iterable[Sample]]


@dataclass(frozen=True)
class Case:
    """One question, asked of every contender in the same way.

    Attributes
    ----------
    name, title : str
        `title` may name amounts in braces, so that it states the sizes used.
    measure : callable
        ``measure(contender, setting)`` yields samples; run in a new process.
    contenders : tuple of str
        Those for which the question makes sense.
    floors : mapping of str to callable
        What no contender can undercut; ``floor(setting)`` yields samples, and is
        run in a new process like a contender.
    floor : str
        The contender or floor that ratios in the table refer to.
    needs : tuple of str
        Modules, besides those of contenders, without which it cannot be asked.
    """

    name: str
    title: str
    measure: Measure
    contenders: tuple[str, ...]
    floor: str
    doc: str
    floors: Mapping[str, Measure] = field(default_factory=dict)
    amounts: Mapping[str, Amount] = field(default_factory=dict)
    goals: tuple[Goal, ...] = ()
    plot: Plot | None = None
    timeout: float = 600.0
    needs: tuple[str, ...] = ()

    def setting(self, quick: bool) -> Setting:
        return Setting(quick, {key: a.of(quick) for key, a in self.amounts.items()})

    def heading(self, quick: bool) -> str:
        words = {
            key: human_bytes(a.of(quick)) if a.unit == "bytes" else f"{a.of(quick):,}"
            for key, a in self.amounts.items()
        }
        return self.title.format(**words)


def human_bytes(count: float) -> str:
    """``6 MiB`` for 6291456: exact binary units only where they fit."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.4g} {unit}"
        count /= 1024
    raise AssertionError("unreachable")
