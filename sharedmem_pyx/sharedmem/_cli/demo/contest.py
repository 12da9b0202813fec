"""Has each way do the same work with the same processes, and measures all of them alike."""

from __future__ import annotations

import itertools
import math
import queue
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np

from sharedmem._cli.demo.memory import Peak, resident, start_afresh, trim
from sharedmem._cli.demo.processes import Work, Worker, pids, started
from sharedmem._cli.demo.source import Source, nbytes
from sharedmem._cli.demo.ways import Way, make_private
from sharedmem._cli.demo.work import Brighten, Check, brighten

#: Parts per worker, as in multiprocessing.Pool.map: a slow worker then delays nobody for long.
PARTS_PER_WORKER = 4

#: Memory that one byte of the array takes, about, where parts of it are copied between processes.
ROOM = 3

#: Elements filled between two reports of progress, about.
_FILL = 1 << 22

#: Called with a phase and the share of it that is done.
Progress = Callable[[str, float], None]


@dataclass
class Result:
    """What was measured; None: does not apply, or the system does not tell.

    Attributes
    ----------
    name : str
        The way.
    bytes_sent : int or None
        Bytes of all messages between processes, both directions, checking included.
    fill, work, check : float or None
        Seconds: to make and fill the array; from the first message to a worker until the last
        answer is in the array; the same for the process that checks.
    memory : int or None
        Most bytes resident in all processes at once, less what the same processes hold idle.
    wrong : str or None
        Where the result is wrong; empty: it equals single-process NumPy's.
    """

    name: str
    bytes_sent: int | None = None
    fill: float | None = None
    work: float | None = None
    check: float | None = None
    memory: int | None = None
    wrong: str | None = None


class Contest:
    """The same work on the same data by the same number of processes, way after way.

    Parameters
    ----------
    source : Source
        What fills the array.
    context : multiprocessing context
        How processes are started.
    workers : int
        How many do the work; one more checks.
    progress : callable
        Told how far it got.
    """

    def __init__(self, source: Source, context: Any, workers: int, progress: Progress) -> None:
        self._source, self._context, self._progress = source, context, progress
        self._workers = workers
        self._works: list[Work] = [*[Brighten()] * workers, Check(source)]
        self.parts = _parts(source, workers)
        self._idle = self._measure_idle()

    def _measure_idle(self) -> int | None:
        """Bytes all processes hold once they have started and before there is an array."""
        source = self._source
        source.read(0, np.empty(source.grain, source.dtype))
        with started(self._context, self._works, None, source.dtype) as team:
            for worker in team[:-1]:
                worker.ask(0, 1, np.ones(1, source.dtype), False)
            trim()
            return resident(pids(team))

    def run_alone(self) -> Result:
        """What NumPy needs in one process: nobody to send to, nothing to check."""
        result = Result("NumPy, one process")
        start_afresh(ROOM * nbytes(self._source))
        peak = Peak(pids([]))
        idle = resident(pids([]))
        _, flat = self._filled(make_private, result)
        start = time.perf_counter()
        done = 0
        for first, count in self.parts:
            brighten(flat[first : first + count])
            done += count
            self._progress("working", done / flat.size)
            peak.look()
        result.work = time.perf_counter() - start
        result.memory = peak.above(idle)
        return result

    def run(self, way: Way) -> Result:
        """Fills an array, has workers brighten it in place and another process check it.

        Raises
        ------
        NoRoomError
            This way cannot hold so large an array here.
        WorkerError
            A worker process failed or was killed.
        """
        result = Result(way.name)
        start_afresh(ROOM * nbytes(self._source))
        # The threads come last into this block and leave it last: where something fails the
        # processes are ended first, and then the threads that wait for them.
        with ThreadPoolExecutor(self._workers) as threads:
            inherited, flat = self._filled(way.make, result)
            with started(self._context, self._works, inherited, flat.dtype) as team:
                peak = Peak(pids(team))
                peak.look(now=True)
                *workers, checker = team
                share_out = _ShareOut(way, self.parts, flat, threads)

                start = time.perf_counter()
                share_out(workers, way.returns, lambda x: self._watch("working", x, peak))
                result.work = time.perf_counter() - start
                peak.look(now=True)

                start = time.perf_counter()
                found = share_out([checker], False, lambda x: self._watch("checking", x, peak))
                result.check = time.perf_counter() - start
                peak.look(now=True)

                result.wrong = next((where for where in found if where), "")
                result.bytes_sent = sum(worker.bytes_sent for worker in team)
                result.memory = peak.above(self._idle)
        return result

    def _filled(
        self, make: Callable[[Source], tuple[np.ndarray, Any]], result: Result
    ) -> tuple[Any, np.ndarray]:
        """New memory as `make` makes it, and the filled array over it, in one dimension."""
        source = self._source
        start = time.perf_counter()
        array, inherited = make(source)
        flat = array.reshape(-1, order="A")
        step = source.grain * max(1, _FILL // source.grain)
        for at in range(0, flat.size, step):
            source.read(at, flat[at : at + step])
            self._progress("filling", min(1, (at + step) / flat.size))
        result.fill = time.perf_counter() - start
        return inherited, flat

    def _watch(self, phase: str, share: float, peak: Peak) -> None:
        self._progress(phase, share)
        peak.look()


def _parts(source: Source, workers: int) -> list[tuple[int, int]]:
    """First element and number of elements of each part."""
    grains = math.prod(source.shape) // source.grain
    count = min(grains, workers * PARTS_PER_WORKER)
    bounds = [source.grain * (grains * i // count) for i in range(count + 1)]
    return [(first, last - first) for first, last in itertools.pairwise(bounds)]


@dataclass
class _ShareOut:
    """Gives each worker the next part as soon as it is free.

    A thread for each worker sends and receives, so that none waits while another is served.
    """

    way: Way
    parts: list[tuple[int, int]]
    flat: np.ndarray
    threads: ThreadPoolExecutor

    def __call__(self, workers: list[Worker], returns: bool, watch: Callable[[float], None]) -> list[Any]:
        rest: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        for part in self.parts:
            rest.put(part)
        results: list[Any] = []
        running = {self.threads.submit(self._drive, w, returns, rest, results) for w in workers}
        while running:
            finished, running = wait(running, timeout=0.02)
            watch(len(results) / len(self.parts))
            for thread in finished:
                thread.result()
        return results

    def _drive(
        self,
        worker: Worker,
        returns: bool,
        rest: queue.SimpleQueue[tuple[int, int]],
        results: list[Any],
    ) -> None:
        while True:
            try:
                first, count = rest.get_nowait()
            except queue.Empty:
                return
            part = self.flat[first : first + count]
            result, answer = worker.ask(first, count, part if self.way.sends else None, returns)
            if returns:
                part[:] = answer
            results.append(result)
