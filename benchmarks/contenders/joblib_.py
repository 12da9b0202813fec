"""joblib's memmapping: arrays in files of /dev/shm, opened by the workers."""

from __future__ import annotations

import importlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from ..model import Setting
from ..transport import sum_part
from .base import Contender, filled


class Joblib(Contender):
    """Items are `numpy.memmap` arrays, as joblib's guide has users make them."""

    name = "joblib"

    def open(self, setting: Setting) -> None:
        self.library = importlib.import_module("joblib")
        self.folder = tempfile.mkdtemp(prefix="benchmark-", dir="/dev/shm")
        paths = (os.path.join(self.folder, str(n)) for n in itertools.count())
        self.paths = paths

    def close(self) -> None:
        shutil.rmtree(self.folder)

    def creator(self, function: str) -> Callable[[int], Any]:
        paths, written = self.paths, function in ("ones", "full")

        def create(elements: int) -> np.memmap:
            item = np.memmap(next(paths), "d", "w+", shape=(elements,))
            if written:  # a new file reads as zeros
                filled(item, function)
            return item

        return create

    def drop(self, item: np.memmap) -> None:
        os.unlink(item.filename)

    def pool(self, workers: int, item: Any = None) -> Any:
        return JoblibPool(self.library, workers)


class JoblibPool:
    """Workers of loky, reused between calls."""

    def __init__(self, library: Any, workers: int) -> None:
        self.library = library
        self.workers = workers
        self.parallel = library.Parallel(n_jobs=workers)

    def __enter__(self) -> JoblibPool:
        self.parallel.__enter__()
        self.parallel(self.library.delayed(abs)(n) for n in range(self.workers * 4))
        return self

    def __exit__(self, *error: object) -> None:
        self.parallel.__exit__(*error)

    def sum(self, item: Any) -> float:
        task = self.library.delayed(sum_part)
        tasks = (task(item, part, self.workers) for part in range(self.workers))
        return sum(self.parallel(tasks))
