"""This library."""

from __future__ import annotations

import importlib
from typing import Any

from ..model import Setting
from .plain import Plain


class Own(Plain):
    """``sharedmem.empty`` and its kin; an item is the array itself."""

    name = "sharedmem"

    def open(self, setting: Setting) -> None:
        self.module = importlib.import_module("sharedmem")

    def dumps(self, obj: Any) -> bytes:
        return self.module.dumps(obj)

    def loads(self, message: bytes) -> tuple[Any, None]:
        return self.module.loads(message), None
