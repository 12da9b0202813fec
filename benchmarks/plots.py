"""Draws lines for cases whose samples lie along an axis, and bars for the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .model import MORE_IS_BETTER, OWN, human_bytes
from .summary import Table

#: One colour for each contender, the same in every plot; the library's own stands out.
COLOURS = {
    "numpy": "#555555",
    OWN: "#d62728",
    "rawarray": "#1f77b4",
    "shared_memory": "#2ca02c",
    "SharedArray": "#9467bd",
    "shared-ndarray2": "#8c564b",
    "torch-fd": "#ff7f0e",
    "torch-fs": "#ffbb78",
    "joblib": "#17becf",
    "ray": "#bcbd22",
    "pickle": "#e377c2",
}
FLOOR_COLOUR = "#999999"
STYLES = ("-", "--", ":", "-.")
RESOLUTION = 110


def draw(tables: Sequence[Table], folder: Path, quick: bool) -> dict[str, str]:
    """Writes a PNG for each case; returns the files' names by case.

    Nothing is drawn where matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        return {}
    matplotlib.use("Agg")
    from matplotlib import pyplot

    written = {}
    for table in tables:
        case = table.outcome.case
        drawing = _lines if case.plot is not None else _bars
        figure = drawing(pyplot, table, quick)
        if figure is None:
            continue
        name = f"{case.name}.png"
        figure.savefig(folder / name, dpi=RESOLUTION)
        pyplot.close(figure)
        written[case.name] = name
    return written


def _lines(pyplot: Any, table: Table, quick: bool) -> Any:
    """A line for each contender and series, a band from least to most."""
    plot, lines = table.outcome.case.plot, table.lines()
    if not lines or plot is None:
        return None
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    styles: dict[str, str] = {}
    for (name, series), figures in lines.items():
        style = styles.setdefault(series, STYLES[len(styles) % len(STYLES)])
        places = [entry.sample.x for entry in figures]
        colour = COLOURS.get(name, FLOOR_COLOUR)
        axes.plot(
            places,
            [entry.median for entry in figures],
            style,
            color=colour,
            marker="." if len(places) < 20 else None,
            linewidth=2.2 if name == OWN else 1.2,
            label=f"{name}: {series}" if series else name,
        )
        low, high = [e.low for e in figures], [e.high for e in figures]
        axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
    if plot.x_log:
        in_bytes = "bytes" in plot.x_label
        places = sorted({entry.sample.x for line in lines.values() for entry in line})
        axes.set_xscale("log")
        axes.set_xticks(places)
        axes.set_xticklabels([human_bytes(x) if in_bytes else f"{x:,.0f}" for x in places])
        axes.tick_params(axis="x", labelsize="x-small", labelrotation=30 if in_bytes else 0)
        axes.minorticks_off()
    if plot.y_log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set(xlabel=plot.x_label, ylabel=plot.y_label)
    axes.set_title(table.outcome.case.heading(quick), fontsize="medium")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small")
    return figure


def _bars(pyplot: Any, table: Table, quick: bool) -> Any:
    """A bar for each contender at the first point of the goals, on a log axis."""
    goals = table.outcome.case.goals
    points = [*(goal.point for goal in goals[:1]), *table.points()]
    if not points:
        return None
    row = {name: figure for name, figure in table.row(points[0]).items() if figure.median > 0}
    if not row:
        return None
    unit = next(iter(row.values())).sample.unit
    better = "more" if MORE_IS_BETTER[unit] else "less"
    names = sorted(row, key=lambda name: row[name].median, reverse=not MORE_IS_BETTER[unit])
    figure, axes = pyplot.subplots(figsize=(8, 1.2 + 0.35 * len(names)), layout="constrained")
    medians = [row[name].median for name in names]
    below = [row[name].median - max(row[name].low, 0.0) for name in names]
    above = [row[name].high - row[name].median for name in names]
    colours = [COLOURS.get(name, FLOOR_COLOUR) for name in names]
    axes.barh(names, medians, xerr=[below, above], color=colours, capsize=2)
    axes.set_xscale("log")
    axes.set_xlabel(f"{points[0]}, {unit} ({better} is better)")
    axes.set_title(table.outcome.case.heading(quick), fontsize="medium")
    axes.grid(axis="x", alpha=0.3)
    return figure
