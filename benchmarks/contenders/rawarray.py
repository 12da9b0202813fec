"""`multiprocessing.RawArray` with an ndarray over it."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import RawArray
from typing import Any

import numpy as np

from .base import Contender, filled


class RawArrays(Contender):
    """Memory that only processes forked later see; always zeroed when made."""

    name = "rawarray"
    inherited = True

    def creator(self, function: str) -> Callable[[int], Any]:
        def create(elements: int) -> np.ndarray:
            return np.frombuffer(RawArray("d", elements))

        if function in ("empty", "zeros"):
            return create
        return lambda elements: filled(create(elements), function)
