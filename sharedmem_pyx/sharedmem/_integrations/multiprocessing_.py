"""The pools and executors of the standard library."""

from __future__ import annotations

from types import ModuleType

from sharedmem._transfers import connections, lost_tasks, pools


def watch_pool(module: ModuleType) -> None:
    """Make the Pools of `multiprocessing.pool` report what could not be loaded.

    The memory of what is lost with killed workers is freed.
    """
    pools.watch_pool(module)
    lost_tasks.watch_pool(module)


def watch_executor(module: ModuleType) -> None:
    """Make the executors of `concurrent.futures.process` report which task could not be loaded, and why.

    The memory of what is lost with killed workers is freed.
    """
    pools.watch_executor(module)
    lost_tasks.watch_executor(module)


def watch_queues(module: ModuleType) -> None:
    """Make the queues of `multiprocessing.queues` free messages that cannot be loaded."""
    connections.watch_queues(module)
