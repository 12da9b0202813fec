"""Plain NumPy: private memory, which no process but the maker can see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .base import FILL, Contender


class Plain(Contender):
    """``np.empty`` and its kin, called as a user would."""

    name = "numpy"
    module: Any = np

    def creator(self, function: str) -> Callable[[int], Any]:
        create = getattr(self.module, function)
        if function == "full":
            return lambda elements: create(elements, FILL["full"])
        return create

    def cycle(self, function: str, elements: int) -> tuple[str, dict[str, Any]]:
        value = f", {FILL['full']}" if function == "full" else ""
        return f"create({elements}{value})", {"create": getattr(self.module, function)}
