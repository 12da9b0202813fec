"""multiprocess: multiprocessing with dill as its pickler, which pathos and mpire use."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any

import numpy as np

from sharedmem._transfers import connections, lost_tasks, pickling, pools
from sharedmem._transfers.reducing import Reducer


def hook_pickler(module: ModuleType) -> None:
    """Make messages of multiprocess keep the arrays in them alive.

    dill's pickler is written in Python. It looks for a type in a table of functions that write
    (``dispatch``), which has an entry for arrays, before it looks in its table of reductions. So the entry is
    replaced.
    """
    pickling.hook_forking_pickler(module)
    owner: Any = module
    cls = owner.ForkingPickler
    dump = cls.dump

    @functools.wraps(dump)
    def dump_with_entry(self: Any, obj: Any) -> None:
        reducer = self.dispatch_table.get(np.ndarray)
        if isinstance(reducer, Reducer):
            self.dispatch = type(self.dispatch)(self.dispatch)
            self.dispatch[np.ndarray] = functools.partial(_save, reducer)
        dump(self, obj)

    cls.dump = dump_with_entry


def _save(reducer: Reducer, pickler: Any, array: Any) -> None:
    """Write an exact ndarray; dill's pickler calls this."""
    reduced = reducer.in_place_of_bytes(array)
    if reduced is not None:
        pickler.save_reduce(*reduced, obj=array)
        return
    plain = type(pickler).dispatch.get(np.ndarray)
    if plain is not None:
        plain(pickler, array)
    else:
        pickler.save_reduce(*array.__reduce_ex__(pickler.proto), obj=array)


def watch_connections(module: ModuleType) -> None:
    """Make the connections of multiprocess keep the ledger, as those of multiprocessing do."""
    connections.watch(module, importlib.import_module("multiprocess.reduction"), rebuild)


def rebuild(df: Any, readable: bool, writable: bool, end: tuple[str, int]) -> Any:
    """A connection that was sent to this process; see `sharedmem._transfers.connections.rebuild`."""
    connection: Any = importlib.import_module("multiprocess.connection")
    conn = connection.rebuild_connection(df, readable, writable)
    conn._sharedmem_end = end
    return conn


def _pickler() -> Any:
    return importlib.import_module("multiprocess.reduction").ForkingPickler


def _loads(message: bytes) -> Any:
    return _pickler().loads(message)


def open_task(message: bytes) -> Any:
    """The task of a message; see `sharedmem._transfers.pools`."""
    return pools.open_task(message, _loads)


def watch_pool(module: ModuleType) -> None:
    """Make its Pools report what could not be loaded, and free what is lost with killed workers."""
    pools.watch_pool(module, _pickler(), open_task)
    lost_tasks.watch_pool(module)


def watch_queues(module: ModuleType) -> None:
    """Make the queues of multiprocess free messages that cannot be loaded."""
    connections.watch_queues(module)
