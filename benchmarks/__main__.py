"""``python -m benchmarks``: measures, and writes tables and plots.

Each case, contender and round is a process of its own. With every contender
and three rounds a full run takes about forty minutes on two cores; the
machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from . import catalogue, machine, plots, report
from .progress import progress
from .runner import NOT_INSTALLED, run_case, runners
from .summary import Table


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures shared arrays beside plain NumPy and other libraries.",
    )
    found.add_argument(
        "--cases",
        type=_names,
        default=list(catalogue.CASES),
        metavar="NAME,...",
        help=f"default: all of {', '.join(catalogue.CASES)}",
    )
    found.add_argument(
        "--contenders",
        type=_names,
        default=list(catalogue.CONTENDERS),
        metavar="NAME,...",
        help=f"default: all of {', '.join(catalogue.CONTENDERS)}; floors always run",
    )
    found.add_argument("--rounds", type=int, default=None, help="default: 3; quick: 1")
    found.add_argument(
        "--quick",
        action="store_true",
        help="small sizes and short repetitions: shows that all works, measures nothing",
    )
    found.add_argument(
        "--output",
        type=Path,
        default=Path("benchmark-results"),
        metavar="DIR",
        help="where benchmarks.md, benchmarks.json and the plots go; default: %(default)s",
    )
    return found


def _refuse_unknown(
    found: argparse.ArgumentParser, what: str, names: Sequence[str], known: Sequence[str]
) -> None:
    unknown = sorted(set(names) - set(known))
    if unknown:
        found.error(f"unknown {what}: {', '.join(unknown)}; known: {', '.join(known)}")


def main(arguments: Sequence[str]) -> int:
    """Runs the suite; 1 if this library failed in a case, else 0."""
    found = parser()
    options = found.parse_args(arguments)
    _refuse_unknown(found, "cases", options.cases, catalogue.CASES)
    _refuse_unknown(found, "contenders", options.contenders, list(catalogue.CONTENDERS))
    rounds = options.rounds or (1 if options.quick else 3)
    cases = [catalogue.case(name) for name in options.cases]
    for name in options.contenders:
        if not catalogue.installed(name):
            print(f"skipped: {name}: not installed", file=sys.stderr)
    description = machine.describe()
    options.output.mkdir(parents=True, exist_ok=True)
    total = rounds * sum(len(runners(case, options.contenders)) for case in cases)
    tables: list[Table] = []
    with progress(total) as display:
        for case in cases:
            outcome = run_case(case, options.contenders, rounds, options.quick, display)
            tables.append(Table(outcome))
            # Written after each case: an interrupted run keeps what it has.
            _write(tables, description, arguments, rounds, options)
    print(f"written: {options.output / 'benchmarks.md'}", file=sys.stderr)
    failed = [
        table.outcome.case.name
        for table in tables
        if not table.outcome.errors.get("sharedmem", NOT_INSTALLED).endswith(NOT_INSTALLED)
    ]
    return 1 if failed else 0


def _write(
    tables: Sequence[Table],
    description: dict[str, str],
    arguments: Sequence[str],
    rounds: int,
    options: argparse.Namespace,
) -> None:
    drawn = plots.draw(tables, options.output, options.quick)
    text = report.markdown(tables, description, arguments, rounds, options.quick, drawn)
    data = report.as_json(tables, description, arguments, rounds, options.quick)
    report.write(options.output, text, data)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
