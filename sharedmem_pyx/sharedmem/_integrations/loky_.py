"""loky, alone and as a part of joblib."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from sharedmem._messages import holding
from sharedmem._transfers import lost_tasks
from sharedmem._transfers.messages import write_message


class Messages:
    """Base class for objects that write the messages of one queue in a different way.

    Loky's queues have a dict of reducers, by type. If it has an entry with this class as its key, the value,
    an instance of this class, writes the messages.
    """

    def write(self, pickler: Any, obj: Any) -> None:
        """Write a message.

        Parameters
        ----------
        pickler : _LokyPickler
            New, with a dispatch table of its own that contains the queue's reducers. Its `dump` is called
            once. The leases that it takes are kept for the message, and given back if this raises.
        obj : object
            What is sent.
        """
        raise NotImplementedError


def hook_pickler(module: ModuleType) -> None:
    """Make messages of loky's executors keep the arrays in them alive.

    Everything that sends calls `dump` of the module, also its function `dumps`.
    """
    owner: Any = module

    def dump(obj: Any, file: Any, reducers: Any = None, protocol: Any = None) -> None:
        """Replacement for pickle.dump() using _LokyPickler."""
        pickler = owner._LokyPickler(file, reducers=reducers, protocol=protocol)
        own = reducers.get(Messages) if reducers else None
        if own is None:
            write_message(pickler, obj, protocol)
        else:
            own.write(pickler, obj)

    owner.dump = holding(dump)


def watch_executor(module: ModuleType) -> None:
    """Have its executors give back the tasks that are lost with their workers."""
    lost_tasks.watch_executor(module)
