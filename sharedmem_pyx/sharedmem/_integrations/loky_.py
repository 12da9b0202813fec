"""loky, alone and as a part of joblib."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from sharedmem._messages import holding
from sharedmem._transfers.messages import write_message


def hook_pickler(module: ModuleType) -> None:
    """Have messages of its executors hold the arrays in them.

    Its function `dumps` calls the function `dump`, and so does whatever sends.
    """
    owner: Any = module

    def dump(obj: Any, file: Any, reducers: Any = None, protocol: Any = None) -> None:
        """Replacement for pickle.dump() using _LokyPickler."""
        write_message(owner._LokyPickler(file, reducers=reducers, protocol=protocol), obj, protocol)

    owner.dump = holding(dump)
