"""``python -m sharedmem demo``: several processes work on one array, in three ways."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.sharedctypes import RawArray
from typing import Any

import numpy as np

import sharedmem
from sharedmem._cli.console import format_bytes, print_table
from sharedmem._cli.demo.work import Shape, begin, brighten_part, check_part, draw, ready, resident, trim

#: Memory that one byte of the array takes, about, where parts of it are copied between processes.
_ROOM = 3
_LARGEST, _SMALLEST = 2**30, 2**23
#: Parts per worker, as in multiprocessing.Pool.map: a slow worker then delays the others only a little.
_PARTS_PER_WORKER = 4
_DTYPE: np.dtype = np.dtype(np.uint16)


class InputError(ValueError):
    """What the user asked for cannot be done; the message is one line that says why."""


class WorkerError(RuntimeError):
    """A worker process ended before its work was done."""


@dataclass(frozen=True)
class Way:
    """How workers get at the array.

    Attributes
    ----------
    name : str
        What the table calls it.
    make : callable
        ``make(shape)`` returns a new array, and the memory that workers must inherit at their start, or None.
    sends : bool
        Whether the array's parts are sent to the workers, which else find them in what they inherited.
    returns : bool
        Whether the parts are sent back.
    """

    name: str
    make: Callable[[Shape], tuple[np.ndarray, Any]]
    sends: bool
    returns: bool


def _make_raw_array(shape: Shape) -> tuple[np.ndarray, Any]:
    size = int(np.prod(shape)) * _DTYPE.itemsize
    # RawArray takes a file in either folder without a look at the room there, and a process that writes past
    # the end of a full disk is killed.
    if all(shutil.disk_usage(folder).free < size + 2**20 for folder in ("/dev/shm", tempfile.gettempdir())):
        raise MemoryError("no room in /dev/shm or the folder for temporary files")
    raw = RawArray("B", size)  # what multiprocessing.Array(..., lock=False) returns
    return np.frombuffer(raw, _DTYPE).reshape(shape), raw


WAYS = (
    Way("pickled copies", lambda shape: (np.empty(shape, _DTYPE), None), sends=True, returns=True),
    Way("multiprocessing.Array", _make_raw_array, sends=False, returns=False),
    Way("sharedmem", lambda shape: (sharedmem.empty(shape, _DTYPE), None), sends=True, returns=False),
)


def run(size: int | None, workers: int | None, start_method: str) -> int:
    """Runs the demo and prints its table.

    Parameters
    ----------
    size : int or None
        Bytes of the stack of images; None: 1 GiB, or less where memory is short.
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
    shape = _shape(size)
    workers = _workers(workers, shape[0])
    parts = _parts(shape[0], workers)
    context = multiprocessing.get_context(start_method)
    nbytes = int(np.prod(shape)) * _DTYPE.itemsize
    with _started(context, workers, None, shape) as (_, pids):
        idle = resident(pids)
    rows, wrong = [], []
    for way in WAYS:
        try:
            row, found = _run(way, context, workers, shape, parts, idle)
        except MemoryError as error:
            rows.append([way.name, "", "", "", f"left out: {error}"])
            continue
        rows.append([way.name, *row, "WRONG" if found else "equal"])
        wrong += [f"{way.name}: WRONG: {found}"] if found else []
    sharedmem.cleanup()
    print(f"{shape[0]} images of {shape[1]} x {shape[2]} pixels, {_DTYPE}: {format_bytes(nbytes)}")
    print(f"workers: {workers} ({start_method}), parts: {len(parts)}, Python {sys.version.split()[0]}")
    print_table("", ["", ">bytes sent", ">seconds", ">memory", "result"], rows)
    return _conclude(wrong)


def _conclude(wrong: list[str]) -> int:
    """Says in words what the table shows, and gives the exit status."""
    print("\nbytes sent: all tasks and results, those of the process that checks included")
    print("seconds: from the first task to the last result that is in the array; checking not included")
    print("memory: the most that all processes held at once, less what they hold without an array")
    for text in wrong:
        print(text)
    if not wrong:
        print("Every result equals that of NumPy in a single process, element by element.")
    return 1 if wrong else 0


def _shape(size: int | None) -> Shape:
    room = sharedmem.stats()["available_bytes"]
    if size is None:
        size = max(_SMALLEST, min(_LARGEST, 1 << (room // _ROOM).bit_length() - 1))
    if _ROOM * size > room:
        raise InputError(
            f"{format_bytes(size)} of data need {format_bytes(_ROOM * size)} of memory with all copies, and "
            f"{format_bytes(room)} are free"
        )
    edge = 1024 if size >= 2**26 else 256
    least = edge * edge * _DTYPE.itemsize
    if size < least:
        raise InputError(f"--size: {size} bytes are too few for one image, which needs {least} bytes")
    return size // least, edge, edge


def _workers(workers: int | None, images: int) -> int:
    if workers is None:
        return min(images, 8, max(2, _cores()))
    if workers > images:
        raise InputError(f"--workers: {workers} are too many for {images} images")
    return workers


def _cores() -> int:
    """Processors that this process may use; all of the machine where the system does not tell which."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _parts(images: int, workers: int) -> list[tuple[int, int]]:
    """First image and number of images of each part."""
    count = min(images, workers * _PARTS_PER_WORKER)
    bounds = [images * i // count for i in range(count + 1)]
    return [(first, last - first) for first, last in itertools.pairwise(bounds)]


def _run(
    way: Way, context: Any, workers: int, shape: Shape, parts: list[tuple[int, int]], idle: int
) -> tuple[list[str], str]:
    """Has workers brighten an array and another process check it: cells of the table, and what is wrong."""
    print(f"{way.name}: working", file=sys.stderr, flush=True)
    trim()
    array, memory = way.make(shape)
    draw(0, array)

    def sent(first: int, count: int) -> np.ndarray | None:
        return array[first : first + count] if way.sends else None

    tasks = [(first, count, sent(first, count), way.returns) for first, count in parts]
    with _started(context, workers, memory, shape) as (pool, pids):
        start = time.perf_counter()
        results = [pool.submit(brighten_part, *task) for task in tasks]
        peak = _wait(results, pids)
        for (first, count), result in zip(parts, results, strict=True):
            if way.returns:
                array[first : first + count] = result.result()
        seconds = time.perf_counter() - start
        peak = max(peak, resident(pids))
    checks = [(first, count, sent(first, count)) for first, count in parts]
    with _started(context, 1, memory, shape) as (pool, _):
        found = [pool.submit(check_part, *check) for check in checks]
        wait(found)
        wrong = next((text for future in found if (text := future.result())), "")
    sent_bytes = sum(len(pickle.dumps(each, 4)) for each in itertools.chain(tasks, checks))
    sent_bytes += sum(len(pickle.dumps(each.result(), 4)) for each in results)
    memory_used = format_bytes(max(0, peak - idle)) if idle else "unknown"
    return [format_bytes(sent_bytes), f"{seconds:.2f}", memory_used], wrong


def _wait(results: list[Future[Any]], pids: list[int]) -> int:
    """Waits for all results; the most bytes that the processes were seen to hold meanwhile."""
    peak, pause = 0, 0.0
    pending = set(results)
    while pending:
        finished, pending = wait(pending, timeout=pause)
        for each in finished:
            each.result()
        start = time.perf_counter()
        peak = max(peak, resident(pids))
        # To look takes time of what is measured, as much as there are pages.
        pause = max(0.01, 20 * (time.perf_counter() - start))
    return peak


@contextlib.contextmanager
def _started(
    context: Any, workers: int, memory: Any, shape: Shape
) -> Iterator[tuple[ProcessPoolExecutor, list[int]]]:
    """Worker processes that are ready, and the ids of all processes; the workers end with the block."""
    if sys.platform != "win32" and context.get_start_method() != "fork":
        # It is started with the first process otherwise, and then lets interrupts through.
        resource_tracker.ensure_running()
    pool = ProcessPoolExecutor(workers, context, begin, (memory, shape, _DTYPE))
    try:
        with _interrupts_held():
            # As many tasks at once as there are workers: each may be started for one of them.
            wait([pool.submit(ready) for _ in range(workers)])
        yield pool, [os.getpid(), *(each.pid for each in multiprocessing.active_children() if each.pid)]
    except BaseException as error:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in multiprocessing.active_children():
            worker.kill()
        if isinstance(error, BrokenProcessPool):
            raise WorkerError("a worker process was killed, or ended by itself") from None
        raise
    finally:
        pool.shutdown()


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the end of this block; processes started inside never feel it.

    It goes to all processes of a terminal at once; only the first one shall act on it, and end
    the others. These inherit that it is blocked. Here, one that reaches another thread is noted.
    Windows cannot block it: a worker that is being started when Ctrl-C is pressed may print a traceback.
    """
    noted: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: noted.append(number))
    if sys.platform != "win32":
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
        if noted:
            signal.raise_signal(signal.SIGINT)
