"""`multiprocessing.shared_memory` with an ndarray over each segment."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from ..model import Setting
from ..transport import start_tracker
from .base import Contender, filled


class Segment:
    """A named segment and the ndarray over it, which must go first."""

    __slots__ = ("array", "memory")

    def __init__(self, memory: SharedMemory, elements: int) -> None:
        self.memory = memory
        self.array: Any = np.ndarray((elements,), "d", memory.buf)

    def close(self) -> None:
        self.array = None
        self.memory.close()


class Named(Contender):
    """One segment for each array; its name travels, and one process unlinks it."""

    name = "shared_memory"

    def open(self, setting: Setting) -> None:
        start_tracker()

    def creator(self, function: str) -> Callable[[int], Any]:
        def create(elements: int) -> Segment:
            item = Segment(SharedMemory(create=True, size=8 * elements), elements)
            if function in ("ones", "full"):  # a new segment reads as zeros
                filled(item.array, function)
            return item

        return create

    def array(self, item: Segment) -> np.ndarray:
        return item.array

    def drop(self, item: Segment) -> None:
        item.close()
        item.memory.unlink()

    def pack(self, item: Segment) -> tuple[str, int]:
        return item.memory.name, item.memory.size // 8

    def unpack(self, message: tuple[str, int]) -> Segment:
        name, elements = message
        return Segment(SharedMemory(name), elements)

    def let_go(self, item: Segment) -> None:
        item.close()

    def hand_off(self, item: Segment) -> None:
        item.close()
