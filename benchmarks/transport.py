"""Processes that receive arrays: one that answers, one that consumes, several that share work.

All are forked, so that starting them costs the same for every contender.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .contenders.base import Contender

FORK = multiprocessing.get_context("fork")
STOP = "stop"


def start_tracker() -> None:
    """Starts multiprocessing's tracker before forking, so that all share one."""
    resource_tracker.ensure_running()


class PipeConsumer:
    """Answers each array sent through a Pipe with ``function(array)``.

    An inherited item is the same each time: the message is then only a token.
    """

    def __init__(self, contender: Contender, function: Callable[[np.ndarray], Any], item: Any) -> None:
        start_tracker()
        self.contender = contender
        self.connection, other = FORK.Pipe()
        self.process = FORK.Process(
            target=_answer,
            args=(other, self.connection, contender, function, item),
            daemon=True,
        )
        self.process.start()
        other.close()

    def __enter__(self) -> PipeConsumer:
        return self

    def __exit__(self, *error: object) -> None:
        self.connection.send(STOP)
        self.process.join()
        self.connection.close()

    def call(self, item: Any) -> Any:
        self.connection.send(0 if self.contender.inherited else self.contender.pack(item))
        return self.connection.recv()


def _answer(connection: Any, unused: Any, contender: Contender, function: Any, inherited: Any) -> None:
    unused.close()
    while True:
        message = connection.recv()
        if isinstance(message, str) and message == STOP:
            return
        if inherited is not None:
            answer = function(contender.array(inherited))
        else:
            item = contender.unpack(message)
            answer = function(contender.array(item))
            contender.let_go(item)
            # The array goes before the answer does, as it would in a user's function.
            message = item = None
        connection.send(answer)


class MessageEcho:
    """Loads each message of ``contender.dumps``, and sends what was in it back by one of its own."""

    def __init__(self, contender: Contender) -> None:
        start_tracker()
        self.contender = contender
        self.connection, other = FORK.Pipe()
        self.process = FORK.Process(target=_echo, args=(other, self.connection, contender), daemon=True)
        self.process.start()
        other.close()

    def __enter__(self) -> MessageEcho:
        return self

    def __exit__(self, *error: object) -> None:
        self.connection.send(STOP)
        self.process.join()
        self.connection.close()

    def call(self, item: Any) -> Arrived:
        self.connection.send(self.contender.dumps(item))
        return Arrived(self.contender, *self.contender.loads(self.connection.recv()))


class Arrived:
    """An object that came by a message; dropping this frees what the message held."""

    def __init__(self, contender: Contender, item: Any, rest: Any) -> None:
        self.contender = contender
        self.item = item
        self.rest = rest

    def __del__(self) -> None:
        self.item = None
        self.contender.end_message(self.rest)


def _echo(connection: Any, unused: Any, contender: Contender) -> None:
    unused.close()
    while True:
        message = connection.recv()
        if isinstance(message, str) and message == STOP:
            return
        item, rest = contender.loads(message)
        answer = contender.dumps(item)
        item = None
        contender.end_message(rest)
        connection.send(answer)


class QueueStream:
    """Consumes arrays from a Queue of `depth` places; the receiver frees each."""

    def __init__(self, contender: Contender, function: Callable[[np.ndarray], Any], depth: int) -> None:
        start_tracker()
        self.contender = contender
        self.queue = FORK.Queue(depth)
        self.connection, other = FORK.Pipe()
        self.process = FORK.Process(
            target=_consume, args=(self.queue, other, contender, function), daemon=True
        )
        self.process.start()
        other.close()

    def __enter__(self) -> QueueStream:
        return self

    def __exit__(self, *error: object) -> None:
        self.queue.put(STOP)
        self.process.join()
        self.queue.close()
        self.connection.close()

    def put(self, item: Any) -> None:
        self.queue.put(self.contender.pack(item))
        self.contender.hand_off(item)

    def wait(self, count: int) -> None:
        """Returns once all of `count` arrays put since the last call are consumed."""
        self.queue.put(count)
        self.connection.recv()


def _consume(queue: Any, connection: Any, contender: Contender, function: Any) -> None:
    while True:
        message = queue.get()
        if isinstance(message, str) and message == STOP:
            return
        if type(message) is int:
            connection.send(message)
            continue
        item = contender.unpack(message)
        function(contender.array(item))
        contender.discard(item)
        message = item = None


class WorkerPool:
    """A `multiprocessing.Pool` whose workers sum parts of an array."""

    def __init__(self, contender: Contender, workers: int, item: Any) -> None:
        start_tracker()
        self.contender = contender
        self.workers = workers
        self.pool = FORK.Pool(workers, _remember, (contender, item))
        self.pool.map(abs, range(workers * 4), chunksize=1)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *error: object) -> None:
        self.pool.close()
        self.pool.join()

    def sum(self, item: Any) -> float:
        message = None if self.contender.inherited else self.contender.pack(item)
        tasks = [(message, part, self.workers) for part in range(self.workers)]
        return sum(self.pool.starmap(_sum_part, tasks, chunksize=1))


_worker: tuple[Any, Any] = (None, None)


def _remember(contender: Contender, item: Any) -> None:
    global _worker
    _worker = (contender, item)


def _sum_part(message: Any, part: int, parts: int) -> float:
    contender, item = _worker
    if item is not None:
        return sum_part(contender.array(item), part, parts)
    received = contender.unpack(message)
    total = sum_part(contender.array(received), part, parts)
    contender.let_go(received)
    return total


def sum_part(array: np.ndarray, part: int, parts: int) -> float:
    """Sum of one of `parts` equal parts of `array`."""
    step = len(array) // parts
    return float(array[part * step : (part + 1) * step].sum())
