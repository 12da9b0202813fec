"""ray: immutable objects in a store that another process keeps."""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from ..model import Setting
from ..transport import sum_part
from .base import FILL, Contender

STORE_BYTES = 4 << 30
QUICK_STORE_BYTES = 1 << 30


class Ray(Contender):
    """Items are references to stored arrays; ``put`` copies, ``get`` maps read-only.

    Processes are ray's own actors and tasks: its references go nowhere else.
    """

    name = "ray"

    def open(self, setting: Setting) -> None:
        self.library = importlib.import_module("ray")
        self.library.init(
            "local",
            num_cpus=8,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=QUICK_STORE_BYTES if setting.quick else STORE_BYTES,
        )

    def close(self) -> None:
        self.library.shutdown()

    def creator(self, function: str) -> Callable[[int], Any]:
        put, make = self.library.put, getattr(np, function)
        if function == "full":
            return lambda elements: put(make(elements, FILL["full"]))
        return lambda elements: put(make(elements))

    def array(self, item: Any) -> np.ndarray:
        return self.library.get(item)

    def consumer(self, function: Callable[[np.ndarray], Any], item: Any = None) -> Any:
        return Actor(self.library, function)

    def stream(self, function: Callable[[np.ndarray], Any], depth: int) -> Any:
        return ActorStream(self.library, function, depth)

    def pool(self, workers: int, item: Any = None) -> Any:
        return Tasks(self.library, workers)


class Applier:
    """The actor's class: applies a function to the arrays it is given."""

    def __init__(self, function: Callable[[np.ndarray], Any]) -> None:
        self.function = function

    def apply(self, array: np.ndarray) -> Any:
        return self.function(array)

    def ready(self) -> bool:
        return True


class Actor:
    """Answers each call from a process of its own."""

    def __init__(self, library: Any, function: Callable[[np.ndarray], Any]) -> None:
        self.library = library
        self.actor = library.remote(Applier).remote(function)
        library.get(self.actor.ready.remote())

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        self.library.kill(self.actor)

    def call(self, item: Any) -> Any:
        return self.library.get(self.actor.apply.remote(item))


class ActorStream(Actor):
    """At most `depth` calls under way."""

    def __init__(self, library: Any, function: Any, depth: int) -> None:
        super().__init__(library, function)
        self.depth = depth
        self.pending: deque[Any] = deque()

    def put(self, item: Any) -> None:
        if len(self.pending) == self.depth:
            self.library.get(self.pending.popleft())
        self.pending.append(self.actor.apply.remote(item))

    def wait(self, count: int) -> None:
        while self.pending:
            self.library.get(self.pending.popleft())


class Tasks:
    """One task for each part of an array."""

    def __init__(self, library: Any, workers: int) -> None:
        self.library = library
        self.workers = workers
        self.task = library.remote(sum_part)
        small = library.put(np.ones(workers))
        for _ in range(4):
            self.sum(small)

    def __enter__(self) -> Tasks:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def sum(self, item: Any) -> float:
        tasks = [self.task.remote(item, n, self.workers) for n in range(self.workers)]
        return sum(self.library.get(tasks))
