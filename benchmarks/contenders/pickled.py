"""Ordinary ndarrays, whose bytes multiprocessing pickles and copies."""

from __future__ import annotations

import pickle
from typing import Any

from ..transport import WorkerPool, sum_part
from .plain import Plain


class Pickled(Plain):
    """Each process has a copy; no other process sees a write."""

    name = "pickle"

    def pool(self, workers: int, item: Any = None) -> Any:
        return PickledPool(self, workers, None)

    def dumps(self, obj: Any) -> bytes:
        return pickle.dumps(obj, 5)

    def loads(self, message: bytes) -> tuple[Any, None]:
        return pickle.loads(message), None


class PickledPool(WorkerPool):
    """Sends each worker its part only: the whole array is not needed there."""

    def sum(self, item: Any) -> float:
        step = len(item) // self.workers
        tasks = [(item[part * step : (part + 1) * step], 0, 1) for part in range(self.workers)]
        return sum(self.pool.starmap(sum_part, tasks, chunksize=1))
