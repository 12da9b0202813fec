"""The SharedArray package: arrays in POSIX shared memory, found by name."""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from ..model import Setting
from .base import Contender, filled


class SharedArrays(Contender):
    """An item is a name and the array; the name is deleted to free it."""

    name = "SharedArray"

    def open(self, setting: Setting) -> None:
        self.library = importlib.import_module("SharedArray")
        self.prefix = f"benchmark-{os.getpid()}-"
        self.numbers = itertools.count()

    def close(self) -> None:
        """Deletes what processes that failed have left behind."""
        for segment in self.library.list():
            name = segment.name.decode()
            if name.startswith(self.prefix):
                self.library.delete(f"shm://{name}")

    def creator(self, function: str) -> Callable[[int], Any]:
        create, numbers, process = self.library.create, self.numbers, os.getpid
        written = function in ("ones", "full")  # a new segment reads as zeros

        def make(elements: int) -> tuple[str, np.ndarray]:
            name = f"shm://{self.prefix}{process()}-{next(numbers)}"
            array = create(name, elements)
            if written:
                filled(array, function)
            return name, array

        return make

    def array(self, item: tuple[str, np.ndarray]) -> np.ndarray:
        return item[1]

    def drop(self, item: tuple[str, np.ndarray]) -> None:
        self.library.delete(item[0])

    def pack(self, item: tuple[str, np.ndarray]) -> str:
        return item[0]

    def unpack(self, message: str) -> tuple[str, np.ndarray]:
        return message, self.library.attach(message)
