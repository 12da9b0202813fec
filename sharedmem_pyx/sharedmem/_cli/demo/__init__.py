"""``python -m sharedmem demo``: several processes work on one array, in three ways."""

from __future__ import annotations

import math
import multiprocessing
import os
import sys

import sharedmem
from sharedmem._cli.console import format_bytes
from sharedmem._cli.demo.contest import ROOM, Contest, Result
from sharedmem._cli.demo.memory import available
from sharedmem._cli.demo.processes import WorkerError
from sharedmem._cli.demo.report import Screen, print_results
from sharedmem._cli.demo.source import InputError, NpyFile, Source, Stack, nbytes
from sharedmem._cli.demo.ways import WAYS, NoRoomError

__all__ = ["InputError", "WorkerError", "run"]

#: Resident bytes of a process that has imported NumPy, generously.
_PROCESS = 48 * 2**20

_LARGEST, _SMALLEST = 2**30, 2**23


def run(file: str | None, size: int | None, workers: int | None, start_method: str) -> int:
    """Runs the demo and prints its table.

    Parameters
    ----------
    file : str or None
        A ``.npy`` file to work on; None: a stack of images is made.
    size : int or None
        Bytes of that stack; None: 1 GiB, or less where memory is short.
    workers : int or None
        Processes that work; None: one for each processor, 2 to 8.
    start_method : str
        ``"fork"``, ``"spawn"`` or ``"forkserver"``.

    Returns
    -------
    int
        Exit status: 0 where every result equals that of NumPy in a single process, else 1.

    Raises
    ------
    InputError
        What was asked for cannot be done.
    WorkerError
        A worker process failed or was killed.
    """
    room = available()
    source = _source(file, size, room)
    workers = _workers(workers, source, room)
    context = multiprocessing.get_context(start_method)
    results: list[Result] = []
    notes: list[str] = []
    with Screen() as screen:
        contest = Contest(source, context, workers, screen)
        screen.begin("NumPy, one process", phases=2)
        results.append(contest.run_alone())
        for way in WAYS:
            screen.begin(way.name)
            try:
                results.append(contest.run(way))
            except NoRoomError as error:
                results.append(Result(way.name))
                notes.append(f"{way.name}: {error}")
        sharedmem.cleanup()
        screen.end()
    parts = len(contest.parts)
    print_results(
        f"{source}: {format_bytes(nbytes(source))}",
        f"{_count(workers, 'worker')} ({start_method}), {_count(parts, 'part')} of "
        f"{format_bytes(nbytes(source) / parts)}, Python {sys.version.split()[0]}",
        results,
    )
    return _conclude(results, notes)


def _source(file: str | None, size: int | None, room: int) -> Source:
    if file is not None and size is not None:
        raise InputError("--size is for the stack the demo makes; a file has its own size")
    if file is not None:
        source: Source = NpyFile(file)
    else:
        if size is None:
            size = 2 ** int(math.log2(max(room // ROOM, 1)))
            size = min(max(size, _SMALLEST), _LARGEST)
        source = Stack(size)
    need = ROOM * nbytes(source)
    if need > room:
        raise InputError(
            f"{format_bytes(nbytes(source))} of data need {format_bytes(need)} of memory with "
            f"all copies, and {format_bytes(room)} are free"
        )
    return source


def _workers(workers: int | None, source: Source, room: int) -> int:
    grains = math.prod(source.shape) // source.grain
    most = min(grains, (room - 2 * nbytes(source)) // _PROCESS - 1)
    if workers is None:
        return max(1, min(most, 8, max(2, len(os.sched_getaffinity(0)))))
    if workers > grains:
        raise InputError(f"--workers: {workers} are too many, there are {grains} parts to work on")
    if workers > most:
        raise InputError(f"--workers: {workers} are too many, memory is there for {max(1, most)}")
    return workers


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _conclude(results: list[Result], notes: list[str]) -> int:
    """Says in words what the table shows, and gives the exit status."""
    print("work: from the first message to a worker until all answers are in the array")
    print("memory: the most all processes held at once, less what they hold when idle")
    for note in notes:
        print(note)
    wrong = [result for result in results if result.wrong]
    for result in wrong:
        print(f"{result.name}: WRONG: {result.wrong}")
    if not wrong:
        print("Every result equals that of NumPy in a single process, element by element.")
    return 1 if wrong else 0
