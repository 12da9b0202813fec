"""Writes the results as JSON and as Markdown tables."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .model import MORE_IS_BETTER, human_bytes
from .summary import Figure, Table, Verdict

#: A case with more points than this gets one table, a line for each point.
LONG = 4


def figure_text(value: float, unit: str) -> str:
    """A value in the unit a reader would choose."""
    if unit == "s":
        for factor, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")):
            if abs(value) >= factor:
                return f"{value / factor:.3g} {name}"
        return f"{value * 1e9:.3g} ns"
    if unit == "bytes":
        return human_bytes(value) if value >= 1 << 14 else f"{value:,.0f} bytes"
    if unit == "1/s":
        return f"{value:,.0f} /s" if value >= 10 else f"{value:.3g} /s"
    if unit in ("count", "reached"):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _spread(figure: Figure) -> str:
    unit = figure.sample.unit
    return f"{figure_text(figure.low, unit)} to {figure_text(figure.high, unit)}"


def _against(figure: Figure, floor: Figure | None) -> str:
    if floor is None or not floor.median:
        return ""
    return f"{figure.median / floor.median:.3g}"


def _point_table(table: Table, point: str) -> list[str]:
    row = table.row(point)
    floor = row.get(table.outcome.case.floor)
    more = MORE_IS_BETTER[next(iter(row.values())).sample.unit]
    ordered = sorted(row.items(), key=lambda entry: entry[1].median, reverse=more)
    lines = [
        f"| {point} | median | least to most | x {table.outcome.case.floor} |",
        "| --- | ---: | ---: | ---: |",
    ]
    notes = []
    for name, figure in ordered:
        text = figure_text(figure.median, figure.sample.unit)
        lines.append(f"| {name} | {text} | {_spread(figure)} | {_against(figure, floor)} |")
        if figure.sample.note:
            notes.append(f"{name}: {figure.sample.note}")
    return [*lines, "", *(f"* {note}" for note in notes), *([""] if notes else [])]


def _cell(figure: Figure, floor: Figure | None) -> str:
    """Median, half the spread in percent of it, ratio to the floor."""
    text = figure_text(figure.median, figure.sample.unit)
    if len(figure.values) > 1 and figure.median:
        spread = abs((figure.high - figure.low) / figure.median) * 50
        text += f" ± {spread:.0f} %"
    if floor is not None and floor is not figure and floor.median:
        text += f" (x {figure.median / floor.median:.3g})"
    return text


def _long_table(table: Table, points: Sequence[str]) -> list[str]:
    names = list(dict.fromkeys(name for point in points for name in table.row(point)))
    lines = [
        f"Medians ± half the spread (x {table.outcome.case.floor}).",
        "",
    ]
    lines += [f"| | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    notes = []
    for point in points:
        row = table.row(point)
        cells = []
        for name in names:
            figure = row.get(name)
            if figure is None:
                cells.append("")
                continue
            cells.append(_cell(figure, row.get(table.outcome.case.floor)))
            if figure.sample.note:
                notes.append(f"{name}: {figure.sample.note}")
        lines.append(f"| {point} | {' | '.join(cells)} |")
    return [*lines, "", *(f"* {note}" for note in notes), *([""] if notes else [])]


def _case_lines(table: Table, quick: bool, plots: dict[str, str]) -> list[str]:
    case = table.outcome.case
    lines = [f"## {case.heading(quick)}", "", f"`{case.name}`: {case.doc.strip()}", ""]
    points = table.points()
    if len(points) > LONG:
        lines += _long_table(table, points)
    else:
        for point in points:
            lines += _point_table(table, point)
    for name, error in table.outcome.errors.items():
        lines.append(f"* skipped: {name}: {error}")
    if table.outcome.errors:
        lines.append("")
    if case.name in plots:
        lines += [f"![{case.heading(quick)}]({plots[case.name]})", ""]
    return lines


def _goal_text(value: float | None, verdict: Verdict, unit: str) -> str:
    if value is None:
        return "not measured"
    return figure_text(value, unit) if verdict.goal.against is None else f"{value:.3g}"


def _goal_lines(tables: Sequence[Table], quick: bool) -> list[str]:
    lines = [
        "| case | point | goal | by medians | by best rounds | |",
        "| --- | --- | --- | ---: | ---: | --- |",
    ]
    for table in tables:
        for goal in table.outcome.case.goals:
            verdict = table.verdict(goal)
            row = table.row(goal.point)
            unit = next(iter(row.values())).sample.unit if row else "ratio"
            word = {True: "met", False: "**missed**", None: ""}[verdict.met]
            against = f" ({verdict.against})" if verdict.against != goal.against else ""
            if not verdict.against:
                against = ""
            lines.append(
                f"| {table.outcome.case.heading(quick)} | {goal.point} | {goal}{against} "
                f"| {_goal_text(verdict.ratio, verdict, unit)} "
                f"| {_goal_text(verdict.best_ratio, verdict, unit)} | {word} |"
            )
    return [*lines, ""]


def markdown(
    tables: Sequence[Table],
    machine: dict[str, str],
    arguments: Sequence[str],
    rounds: int,
    quick: bool,
    plots: dict[str, str],
) -> str:
    """The whole report."""
    command = shlex.join(["python", "-m", "benchmarks", *arguments])
    lines = ["# Benchmarks", ""]
    if quick:
        lines += ["A quick run: sizes are reduced and the figures mean little.", ""]
    lines += [
        f"Made by `{command}`; {rounds} rounds, each contender in a process of its "
        "own in each round, contenders taking turns. Figures are medians over the "
        "rounds, with the least and the most.",
        "",
        *(f"* {key}: {value}" for key, value in machine.items()),
        "",
        "## Goals",
        "",
        *_goal_lines(tables, quick),
    ]
    for table in tables:
        lines += _case_lines(table, quick, plots)
    return "\n".join(lines).rstrip() + "\n"


def as_json(
    tables: Sequence[Table],
    machine: dict[str, str],
    arguments: Sequence[str],
    rounds: int,
    quick: bool,
) -> dict[str, Any]:
    """Everything measured, each round's value included."""
    cases = {}
    for table in tables:
        case = table.outcome.case
        cases[case.name] = {
            "title": case.heading(quick),
            "floor": case.floor,
            "errors": table.outcome.errors,
            "figures": [
                {
                    "contender": name,
                    "point": figure.sample.point,
                    "series": figure.sample.series,
                    "x": figure.sample.x,
                    "unit": figure.sample.unit,
                    "note": figure.sample.note,
                    "values": list(figure.values),
                    "median": figure.median,
                }
                for row in table.cells.values()
                for name, figure in row.items()
            ],
            "goals": [
                {
                    "point": verdict.goal.point,
                    "goal": str(verdict.goal),
                    "against": verdict.against,
                    "ratio": verdict.ratio,
                    "best_ratio": verdict.best_ratio,
                    "met": verdict.met,
                }
                for verdict in map(table.verdict, case.goals)
            ],
        }
    return {
        "arguments": list(arguments),
        "rounds": rounds,
        "quick": quick,
        "machine": machine,
        "cases": cases,
    }


def write(folder: Path, text: str, data: dict[str, Any]) -> None:
    (folder / "benchmarks.md").write_text(text)
    (folder / "benchmarks.json").write_text(json.dumps(data, indent=1) + "\n")
