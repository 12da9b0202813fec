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
    """Have its messages hold the arrays in them.

    dill's pickler is written in Python, and asks a table of functions that write before it asks the one of
    reductions. It has one for arrays there.
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
    """What dill's pickler calls to write an exact ndarray."""
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
    """Have its connections keep the ledger, as those of multiprocessing do."""
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
    """Have its Pools report what could not be loaded, and give back what is lost with their workers."""
    pools.watch_pool(module, _pickler(), open_task)
    lost_tasks.watch_pool(module)


def watch_queues(module: ModuleType) -> None:
    """Have its queues give up messages that cannot be loaded."""
    connections.watch_queues(module)
