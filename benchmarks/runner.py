"""Runs measurements, each in a new process, rounds interleaved over contenders."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .catalogue import installed, missing
from .model import OWN, Case, Sample
from .progress import Progress

#: How the reason ends where something is not there to be measured, which is no fault.
NOT_INSTALLED = "not installed"

#: Seconds a measurement has to end in order after being asked to.
GRACE = 15.0


@dataclass
class Outcome:
    """What the rounds of one case gave.

    Attributes
    ----------
    rounds : dict of str to list of list of Sample
        By contender or floor, the samples of each round that succeeded.
    errors : dict of str to str
        By contender or floor, why it has no figures or no more of them.
    """

    case: Case
    rounds: dict[str, list[list[Sample]]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


def runners(case: Case, wanted: Sequence[str]) -> list[str]:
    """Floors and contenders of `case` to be run: floors, this library, others."""
    chosen = [name for name in case.contenders if name in wanted]
    chosen.sort(key=lambda name: name != OWN)
    return [*case.floors, *chosen]


def run_case(case: Case, wanted: Sequence[str], rounds: int, quick: bool, progress: Progress) -> Outcome:
    """Measures `case`; a contender that fails once is not asked again."""
    outcome = Outcome(case)
    names = runners(case, wanted)
    lacks = ", ".join(missing(case))
    for name in list(names):
        if lacks:
            outcome.errors[name] = f"{lacks}: {NOT_INSTALLED}"
        elif name not in case.floors and not installed(name):
            outcome.errors[name] = NOT_INSTALLED
        if name in outcome.errors:
            names.remove(name)
            progress.advance(rounds)
    for number in range(rounds):
        # Each round starts with another contender, so that none is always first.
        turn = number % len(names) if names else 0
        for name in names[turn:] + names[:turn]:
            progress.show(case.name, name, number + 1)
            if name not in outcome.errors:
                answer = run_one(case, name, quick)
                if isinstance(answer, str):
                    outcome.errors[name] = answer
                    progress.problem(case.name, name, answer)
                else:
                    outcome.rounds.setdefault(name, []).append(answer)
            progress.advance(1)
    return outcome


def run_one(case: Case, name: str, quick: bool) -> list[Sample] | str:
    """The samples of one round of one contender, or why there are none."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        result, log = Path(folder) / "result", Path(folder) / "log"
        command = [sys.executable, "-m", "benchmarks.worker", case.name, name]
        command += ["quick" if quick else "full", str(result)]
        with log.open("wb") as output:
            status = _run(command, output.fileno(), case.timeout)
        if result.exists():
            answer = json.loads(result.read_text())
            if "error" in answer:
                return str(answer["error"])
            return [Sample(**sample) for sample in answer["samples"]]
        last = log.read_text(errors="replace").strip().splitlines()[-1:]
        return f"{status}: {' '.join(last)}"


def _run(command: list[str], output: int, timeout: float) -> str:
    """Runs `command` as leader of a process group that ends with it."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd=Path(__file__).parents[1],
        start_new_session=True,
        env={**os.environ, "PYTHONHASHSEED": "0", "RAY_DEDUP_LOGS": "0"},
    )
    try:
        return f"exit status {process.wait(timeout)}"
    except subprocess.TimeoutExpired:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        return f"not done in {timeout:g} s"
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        _remove_left(process.pid)


def _remove_left(pid: int) -> None:
    """Removes files of a library that crashed before its contender could delete them."""
    for path in Path("/dev/shm").glob(f"benchmark-{pid}-*"):
        path.unlink(missing_ok=True)
