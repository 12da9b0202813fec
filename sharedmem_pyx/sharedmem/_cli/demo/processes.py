"""Worker processes, each at the other end of a pipe."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing import connection, resource_tracker
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np

#: What a process does with a part, given the number of its first element.
Work = Callable[[int, np.ndarray], Any]

#: Seconds a process has for ending by itself before it is killed.
_PATIENCE = 5.0


class WorkerError(RuntimeError):
    """A worker process failed or ended; the message says how."""


class Worker:
    """A process that does `work` on each part of an array it is sent.

    Parameters
    ----------
    context : multiprocessing context
        How the process is started.
    work : callable
        Called in the process with a part's first element's number and the part.
    inherited : buffer or None
        Memory that only a starting process can be given.
    dtype : dtype
        Type of the elements in `inherited`.
    others : list of connections
        Ends that a forked process must not keep open.
    """

    def __init__(
        self,
        context: Any,
        work: Work,
        inherited: Any,
        dtype: np.dtype,
        others: list[connection.Connection],
    ) -> None:
        ours, end = context.Pipe()
        self._end: connection.Connection = ours
        forked = context.get_start_method() == "fork"
        close = [*others, self._end] if forked else []
        self._process = context.Process(target=_serve, args=(end, work, inherited, dtype, close), daemon=True)
        self._process.start()
        end.close()
        self.pid = self._process.pid
        self.bytes_sent = 0  #: in both directions
        self._waiting = threading.Lock()
        self._exit_status: int | None = None

    @property
    def end(self) -> connection.Connection:
        """This process's end of the pipe."""
        return self._end

    def wait_until_ready(self) -> None:
        """Returns once the process waits for work."""
        self._receive()

    def ask(self, first: int, count: int, part: np.ndarray | None, wanted: bool) -> Any:
        """Has a part worked on; returns when that is done.

        Parameters
        ----------
        first, count : int
            Number of the part's first element, and how many it has.
        part : ndarray or None
            The part itself, to be sent; None: the process finds it in what it inherited.
        wanted : bool
            Whether the worked-on part is sent back.

        Returns
        -------
        tuple
            What the work returned, and the part sent back or None.
        """
        self._send((first, count, part, wanted))
        return self._receive()

    def _send(self, task: Any) -> None:
        message = ForkingPickler.dumps(task)
        self.bytes_sent += len(message)
        with contextlib.suppress(OSError):  # it has ended: receiving says how
            self._end.send_bytes(message)

    def _receive(self) -> Any:
        try:
            answer = self._end.recv_bytes()
        except (EOFError, OSError):
            raise WorkerError(f"worker process {self.pid} {self._fate()}") from None
        self.bytes_sent += len(answer)
        failure, result, part = ForkingPickler.loads(answer)
        if failure is not None:
            raise WorkerError(f"worker process {self.pid}: {failure}")
        return result, part

    def _status(self) -> int | None:
        """Exit status, once the process has ended; None: it takes too long."""
        with self._waiting:  # only one thread can take it from the system
            if self._exit_status is None:
                self._process.join(_PATIENCE)
                self._exit_status = self._process.exitcode
            return self._exit_status

    def _fate(self) -> str:
        status = self._status()
        if status is None or status >= 0:
            return f"ended with status {status}"
        return f"was killed by signal {-status} ({signal.strsignal(-status)})"

    def stop(self) -> None:
        """Asks the process to end; `join` waits for that."""
        with contextlib.suppress(OSError):
            self._end.send(None)

    def kill(self) -> None:
        """Ends the process whatever it does."""
        self._process.kill()

    def join(self) -> None:
        """Waits for the end of the process; one that takes too long is killed."""
        if self._status() is None:
            self._process.kill()
            self._status()
        self._end.close()
        self._process.close()


def _serve(
    end: connection.Connection,
    work: Work,
    inherited: Any,
    dtype: np.dtype,
    others: list[connection.Connection],
) -> None:
    """Main loop of a worker process: ends on request, or when its parent has ended."""
    for other in others:
        other.close()
    whole = None if inherited is None else np.frombuffer(inherited, dtype)
    parent = multiprocessing.parent_process()
    assert parent is not None
    with contextlib.suppress(OSError):  # the parent has ended while an answer was sent
        end.send((None, None, None))
        while end in connection.wait([end, parent.sentinel]):
            try:
                task = end.recv()
            except EOFError:
                return
            if task is None:
                return
            answer = _answer(task, work, whole)
            end.send(answer)
            del task, answer  # nothing is kept while it waits


def _answer(task: Any, work: Work, whole: np.ndarray | None) -> tuple[str | None, Any, Any]:
    first, count, part, wanted = task
    try:
        if part is None:
            assert whole is not None
            part = whole[first : first + count]
        result = work(first, part)
        return None, result, part if wanted else None
    except Exception as error:
        return f"{type(error).__name__}: {error}", None, None


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the end of this block; processes started inside never feel it.

    It goes to all processes of a terminal at once; only the first one shall act on it, and end
    the others. These inherit that it is blocked. Here, one that reaches another thread is noted.
    """
    noted: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: noted.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
        if noted:
            signal.raise_signal(signal.SIGINT)


@contextlib.contextmanager
def started(
    context: Any,
    works: list[Work],
    inherited: Any,
    dtype: np.dtype,
) -> Iterator[list[Worker]]:
    """Worker processes, one for each of `works`, ready; all have ended after the block."""
    workers: list[Worker] = []
    if context.get_start_method() != "fork":
        # It is started with the first process otherwise, and then lets interrupts through.
        resource_tracker.ensure_running()
    try:
        with _interrupts_held():
            for work in works:
                ends = [worker.end for worker in workers]
                workers.append(Worker(context, work, inherited, dtype, ends))
        for worker in workers:
            worker.wait_until_ready()
        yield workers
    except BaseException:
        for worker in workers:
            worker.kill()
        raise
    else:
        for worker in workers:
            worker.stop()
    finally:
        for worker in workers:
            worker.join()


def pids(workers: list[Worker]) -> list[int]:
    """This process and its workers."""
    return [os.getpid(), *(worker.pid for worker in workers if worker.pid is not None)]
