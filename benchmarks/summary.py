"""Medians, spread, ratios and goals from the rounds of a case."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from .model import MORE_IS_BETTER, OWN, PEERS, Goal, Sample
from .runner import Outcome

#: Contenders that are no peers: private memory, copies, this library.
NO_PEERS = frozenset({"numpy", "pickle", OWN})


@dataclass(frozen=True)
class Figure:
    """One contender at one point, over the rounds."""

    sample: Sample
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)

    @property
    def best(self) -> float:
        return self.high if MORE_IS_BETTER[self.sample.unit] else self.low


@dataclass(frozen=True)
class Verdict:
    """How a goal fared; `ratio` is None where something was not measured."""

    goal: Goal
    ratio: float | None
    best_ratio: float | None
    met: bool | None
    against: str


class Table:
    """Figures of a case by point and contender, in the order measured."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.cells: dict[str, dict[str, Figure]] = {}
        gathered: dict[tuple[str, str], list[Sample]] = {}
        for name, rounds in outcome.rounds.items():
            for samples in rounds:
                for sample in samples:
                    gathered.setdefault((_key(sample), name), []).append(sample)
        for (point, name), found in gathered.items():
            figure = Figure(found[0], tuple(sample.value for sample in found))
            self.cells.setdefault(point, {})[name] = figure

    def points(self) -> list[str]:
        """Names of the points that belong in a table."""
        return [
            point for point, row in self.cells.items() if not next(iter(row.values())).sample.plotted_only
        ]

    def row(self, point: str) -> dict[str, Figure]:
        return self.cells.get(point, {})

    def lines(self) -> dict[tuple[str, str], list[Figure]]:
        """Figures to plot, by contender and series, sorted along the axis."""
        found: dict[tuple[str, str], list[Figure]] = {}
        for row in self.cells.values():
            for name, figure in row.items():
                if figure.sample.x is not None:
                    found.setdefault((name, figure.sample.series), []).append(figure)
        for line in found.values():
            line.sort(key=lambda figure: figure.sample.x or 0.0)
        return found

    def verdict(self, goal: Goal) -> Verdict:
        """Judges `goal` by medians."""
        row = self.row(goal.point)
        own = row.get(OWN)
        other_name, other = self._against(goal, row)
        if own is None or (goal.against is not None and other is None):
            return Verdict(goal, None, None, None, other_name)
        ratio = _ratio(goal, own, own.median, other.median if other else 1.0)
        best = _ratio(goal, own, own.best, other.best if other else 1.0)
        if goal.at_most is not None:
            met = ratio <= goal.at_most
        else:
            bound = goal.at_least if goal.at_least is not None else goal.better_by
            met = bound is not None and ratio >= bound
        return Verdict(goal, ratio, best, met, other_name)

    def _against(self, goal: Goal, row: dict[str, Figure]) -> tuple[str, Figure | None]:
        if goal.against is None:
            return "", None
        if goal.against != PEERS:
            return goal.against, row.get(goal.against)
        floors = self.outcome.case.floors
        peers = {name: figure for name, figure in row.items() if name not in NO_PEERS and name not in floors}
        if not peers:
            return PEERS, None
        unit = next(iter(peers.values())).sample.unit
        choose = max if MORE_IS_BETTER[unit] else min
        name = choose(peers, key=lambda name: peers[name].median)
        return name, peers[name]


def _key(sample: Sample) -> str:
    return f"{sample.point} @ {sample.x:g}" if sample.plotted_only else sample.point


def _ratio(goal: Goal, own: Figure, value: float, other: float) -> float:
    """Value over the other's; for `better_by` such that more is better."""
    if goal.better_by is not None and not MORE_IS_BETTER[own.sample.unit]:
        return other / value if value else float("inf")
    return value / other if other else float("inf")
