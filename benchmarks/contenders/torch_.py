"""`torch.multiprocessing`: tensors in shared memory, by either of its strategies."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ..model import Setting
from .base import FILL, Contender


class Torch(Contender):
    """Items are tensors, made by PyTorch and moved with ``share_memory_``.

    That call copies, also what is not set: PyTorch has no public function
    that makes a tensor in shared memory.
    """

    strategy = ""

    def open(self, setting: Setting) -> None:
        self.torch = importlib.import_module("torch")
        sharing = importlib.import_module("torch.multiprocessing")
        sharing.set_sharing_strategy(self.strategy)

    def creator(self, function: str) -> Callable[[int], Any]:
        make, double = getattr(self.torch, function), self.torch.float64
        if function == "full":
            value = FILL["full"]
            return lambda n: make((n,), value, dtype=double).share_memory_()
        return lambda n: make(n, dtype=double).share_memory_()

    def array(self, item: Any) -> np.ndarray:
        return item.numpy()


class TorchDescriptors(Torch):
    """A descriptor for each tensor, passed through a socket."""

    name = "torch-fd"
    strategy = "file_descriptor"


class TorchFiles(Torch):
    """A named file for each tensor, removed by a daemon of PyTorch's."""

    name = "torch-fs"
    strategy = "file_system"
