"""The pools and executors of the standard library."""

from __future__ import annotations

from types import ModuleType

from sharedmem._transfers import connections, pools


def watch_pool(module: ModuleType) -> None:
    """Make the Pools of `multiprocessing.pool` report what could not be loaded."""
    pools.watch_pool(module)


def watch_executor(module: ModuleType) -> None:
    """Make the executors of `concurrent.futures.process` report which task could not be loaded, and why."""
    pools.watch_executor(module)


def watch_queues(module: ModuleType) -> None:
    """Make the queues of `multiprocessing.queues` free messages that cannot be loaded."""
    connections.watch_queues(module)
