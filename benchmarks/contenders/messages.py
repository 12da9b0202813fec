"""Ways to send whole objects between processes by what the standard library and others have for it."""

from __future__ import annotations

import importlib
import pickle
from multiprocessing.shared_memory import SharedMemory
from typing import Any

from ..model import Setting
from ..transport import start_tracker
from .base import Contender

ALIGNMENT = 64


class ByHand(Contender):
    """Pickle's protocol 5, its buffers copied into one segment of `multiprocessing.shared_memory`."""

    name = "pickle 5 by hand"

    def open(self, setting: Setting) -> None:
        start_tracker()

    def dumps(self, obj: Any) -> Any:
        buffers: list[pickle.PickleBuffer] = []
        stream = pickle.dumps(obj, 5, buffer_callback=buffers.append)
        views = [buffer.raw() for buffer in buffers]
        starts, end = [], 0
        for view in views:
            starts.append(end)
            end += -(-view.nbytes // ALIGNMENT) * ALIGNMENT
        memory = SharedMemory(create=True, size=max(end, 1))
        for start, view in zip(starts, views, strict=True):
            memory.buf[start : start + view.nbytes] = view
        places = [(start, start + view.nbytes) for start, view in zip(starts, views, strict=True)]
        memory.close()
        return memory.name, places, stream

    def loads(self, message: Any) -> tuple[Any, Any]:
        name, places, stream = message
        memory = SharedMemory(name)
        memory.unlink()
        return pickle.loads(stream, buffers=[memory.buf[start:end] for start, end in places]), memory

    def end_message(self, rest: Any) -> None:
        rest.close()


class FastShare(Contender):
    """``fastshare.write`` and ``read``."""

    name = "fastshare"

    def open(self, setting: Setting) -> None:
        start_tracker()
        self.module = importlib.import_module("fastshare")
        # The public functions free a block at the end of the process only.
        self.registry = importlib.import_module("fastshare._registry")

    def dumps(self, obj: Any) -> str:
        return self.module.write(obj)

    def loads(self, message: str) -> tuple[Any, str]:
        return self.module.read(message, readonly=False), message

    def end_message(self, rest: Any) -> None:
        if rest.startswith("FSHR:shm:"):
            self.registry.unlink(rest.rpartition(":")[2])
