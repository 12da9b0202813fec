"""``python -m benchmarks.instructions``: instructions of the hot paths, counted.

Times are noisy and counts are not: a change that makes a hot path longer is
seen on a busy machine too. Each path is executed in a new interpreter, some
times and then more times; the difference of the two counts is divided by the
difference of the numbers of executions, which leaves out the interpreter's
start and the imports. Counts are compared with those recorded in
``instructions.json`` for the same tool, processor and versions.

``perf stat`` is used where the processor's counter can be read, else
``valgrind --tool=callgrind``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RECORD = Path(__file__).with_name("instructions.json")
TOLERANCE = 0.03
FEW, MORE = 2_000, 12_000

#: Paths by name: what is executed once, and what is counted.
PATHS = {
    "nothing": ("pass", "pass"),
    "numpy.empty(100)": ("from numpy import empty", "empty(100)"),
    "empty(100)": ("from sharedmem import empty", "empty(100)"),
    "zeros(100)": ("from sharedmem import zeros", "zeros(100)"),
    "ones(100)": ("from sharedmem import ones", "ones(100)"),
    "view": ("from sharedmem import ones; a = ones(100)", "a[1:50]"),
    "is_shared": (
        "from sharedmem import is_shared, ones; a = ones(100)",
        "is_shared(a)",
    ),
    "dumps": (
        "from pickle import dumps; from sharedmem import ones; a = ones(100)",
        "dumps(a, 4)",
    ),
    "loads": (
        "from pickle import dumps, loads; from sharedmem import ones; a = ones(100); p = dumps(a, 4)",
        "loads(p)",
    ),
    "sent alone and loaded": (
        "from multiprocessing.reduction import ForkingPickler; from pickle import loads; "
        "from sharedmem import ones; a = ones(100); dumps = ForkingPickler.dumps",
        "loads(dumps(a))",
    ),
    "small dict sent and loaded": (
        "from multiprocessing.reduction import ForkingPickler; from pickle import loads; "
        "import sharedmem; sharedmem.transport(); a = {'a': 1}; dumps = ForkingPickler.dumps",
        "loads(dumps(a))",
    ),
    "queue": ("from sharedmem import Queue; q = Queue()", "q.put((1, 2, 3)); q.get()"),
    "queue of arrays": ("from sharedmem import Queue, ones; q = Queue(); a = ones(100)", "q.put(a); q.get()"),
    # Walks what this process holds: it is not to grow with the arena, nor is a fork, which walks it, too.
    "stats": ("from sharedmem import ones, stats; a = ones(100)", "stats()"),
}

#: What a process does once: what is there before, and what is counted.
ONCE = {
    "import": ("import multiprocessing.connection, numpy", "import sharedmem"),
}

PROGRAM = """
{setup}
def run(times):
    for _ in range(times):
        {statement}
run({times})
import os
os._exit(0)
"""


def _environment() -> dict[str, str]:
    """Fixed hashes, and an arena small enough for valgrind."""
    return {
        **os.environ,
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1",  # waiting threads count instructions, too
        "SHAREDMEM_ARENA": "new",
        "SHAREDMEM_ARENA_SIZE": str(1 << 30),
    }


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.strip()[-400:]}")
    return done.stderr


def _count_perf(program: str) -> int:
    command = ["perf", "stat", "-x,", "-e", "instructions:u", "--"]
    output = _run([*command, sys.executable, "-c", program])
    found = re.search(r"^(\d+),.*instructions", output, re.MULTILINE)
    if found is None:
        raise RuntimeError("perf cannot count instructions here")
    return int(found[1])


def _count_callgrind(program: str) -> int:
    with tempfile.TemporaryDirectory(prefix="instructions-") as folder:
        command = ["valgrind", "--tool=callgrind"]
        command += [f"--callgrind-out-file={folder}/out"]
        output = _run([*command, sys.executable, "-c", program])
    found = re.search(r"Collected : (\d+)", output)
    if found is None:
        raise RuntimeError("callgrind reported no count")
    return int(found[1])


TOOLS = {"perf": _count_perf, "callgrind": _count_callgrind}
PROGRAMS = {"perf": "perf", "callgrind": "valgrind"}


def usable_tool() -> str | None:
    """The first tool that counts on this machine."""
    for tool, count in TOOLS.items():
        if shutil.which(PROGRAMS[tool]):
            try:
                count("pass")
            except RuntimeError:
                continue
            return tool
    return None


def count(tool: str, path: str) -> float:
    """Instructions of one execution of `path`, the loop around it included if there is one."""
    if path in ONCE:
        setup, statement = ONCE[path]
        without, with_it = (
            TOOLS[tool](PROGRAM.format(setup=text, statement="pass", times=0))
            for text in (setup, f"{setup}; {statement}")
        )
        return with_it - without
    setup, statement = PATHS[path]
    few, more = (
        TOOLS[tool](PROGRAM.format(setup=setup, statement=statement, times=times)) for times in (FEW, MORE)
    )
    return (more - few) / (MORE - FEW)


def place(tool: str) -> str:
    """What counts depend on besides this library: the key of a record."""
    return "; ".join(
        (
            tool,
            platform.machine(),
            f"Python {platform.python_version()}",
            f"NumPy {version('numpy')}",
        )
    )


def compare(counts: dict[str, float], recorded: dict[str, float], tolerance: float) -> list[str]:
    """The paths that got longer than recorded by more than `tolerance`."""
    return [
        path
        for path, value in counts.items()
        if path in recorded and value > recorded[path] * (1 + tolerance) + 1
    ]


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m benchmarks.instructions",
        description="Counts instructions of hot paths and compares with a record.",
    )
    found.add_argument("--record", action="store_true", help="store the counts")
    found.add_argument("--tool", choices=sorted(TOOLS), help="default: what works here")
    found.add_argument(
        "--paths", default=",".join([*ONCE, *PATHS]), metavar="NAME,...", help="default: %(default)s"
    )
    found.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        metavar="FRACTION",
        help="growth that is no regression; default: %(default)s",
    )
    found.add_argument("--file", type=Path, default=RECORD, help="default: %(default)s")
    return found


def main(arguments: Sequence[str]) -> int:
    """1 if a path got longer than recorded, 2 if nothing can be counted, else 0."""
    options = parser().parse_args(arguments)
    tool = options.tool or usable_tool()
    if tool is None:
        print("neither perf nor valgrind can count instructions here")
        return 2
    records = json.loads(options.file.read_text()) if options.file.exists() else {}
    recorded = records.get(place(tool), {})
    print(f"{place(tool)}{'' if recorded else ': no record to compare with'}")
    counts = {}
    for path in options.paths.split(","):
        counts[path] = round(count(tool, path), 1)
        before = recorded.get(path)
        change = "" if before is None else f"  recorded {before:10,.1f}"
        print(f"{path:<20} {counts[path]:10,.1f}{change}", flush=True)
    if options.record:
        records[place(tool)] = {**recorded, **counts}
        options.file.write_text(json.dumps(records, indent=1, sort_keys=True) + "\n")
        return 0
    longer = compare(counts, recorded, options.tolerance)
    for path in longer:
        print(f"longer than recorded: {path}")
    return 1 if longer else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (PackageNotFoundError, RuntimeError) as error:
        sys.exit(str(error))
