"""loky, alone and as a part of joblib."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from sharedmem._messages import holding
from sharedmem._transfers import lost_tasks
from sharedmem._transfers.messages import write_message


class Messages:
    """Base class of those that write the messages of one queue in a way of their own.

    Loky's queues have a dict of reducers, by type. Where that has an instance of this class, under this
    class as the key, the instance writes.
    """

    def write(self, pickler: Any, obj: Any) -> None:
        """Write a message.

        Parameters
        ----------
        pickler : _LokyPickler
            New, with a dispatch table of its own, in which the queue's reducers are. Its `dump` is called
            once. What it takes leases for is held, and given back if this raises.
        obj : object
            What is sent.
        """
        raise NotImplementedError


def hook_pickler(module: ModuleType) -> None:
    """Have messages of its executors hold the arrays in them.

    Its function `dumps` calls the function `dump`, and so does whatever sends.
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
