"""multiprocess: multiprocessing with dill as its pickler, which pathos and mpire use."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from sharedmem._transfers import connections, pickling, pools


def hook_pickler(module: ModuleType) -> None:
    """Have its messages hold the arrays in them."""
    pickling.hook_forking_pickler(module)


def watch_connections(module: ModuleType) -> None:
    """Have its connections keep the ledger, as those of multiprocessing do."""
    from multiprocess import reduction

    connections.watch(module, reduction, rebuild)


def rebuild(df: Any, readable: bool, writable: bool, end: tuple[str, int]) -> Any:
    """A connection that was sent to this process; see `sharedmem._transfers.connections.rebuild`."""
    from multiprocess.connection import rebuild_connection

    conn = rebuild_connection(df, readable, writable)
    conn._sharedmem_end = end
    return conn


def _loads(message: bytes) -> Any:
    from multiprocess.reduction import ForkingPickler

    return ForkingPickler.loads(message)


def open_task(message: bytes) -> Any:
    """The task of a message; see `sharedmem._transfers.pools`."""
    return pools.open_task(message, _loads)


def watch_pool(module: ModuleType) -> None:
    """Have its Pools report what could not be loaded."""
    from multiprocess.reduction import ForkingPickler

    pools.watch_pool(module, ForkingPickler, open_task)
