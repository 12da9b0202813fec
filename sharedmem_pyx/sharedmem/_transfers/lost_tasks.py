"""Tasks that a killed worker had not loaded give their memory back when all workers have ended.

Such a task may still be in the pipe, or a worker had read it and was killed before it loaded the arrays. The
caller cannot tell this by the pipe: it closes its end while the workers are being killed, or keeps the other
end open. But it waits for the end of the workers, and they do nothing with a task but load it.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from sharedmem import _in_flight


def _is_watched(conn: Any) -> bool:
    """Whether the ledger has what is sent by it: not on Windows, nor in pools of threads, which have none."""
    return hasattr(conn, "_sharedmem_to_workers")


def _begin(conn: Any) -> None:
    """Workers are going to read what is sent by a connection."""
    if _is_watched(conn):
        _in_flight.to_workers(conn)


def _end(conn: Any) -> None:
    """These workers have ended."""
    if _is_watched(conn):
        _in_flight.workers_ended(conn)


def watch_executor(module: ModuleType) -> None:
    """Have the executors of a module give back the tasks that are lost with their workers.

    Parameters
    ----------
    module : module
        `concurrent.futures.process`, or loky's `process_executor`.
    """
    owner: Any = module
    init, run = owner._SafeQueue.__init__, owner._ExecutorManagerThread.run

    @functools.wraps(init)
    def init_watched(self: Any, *args: Any, **keywords: Any) -> None:
        init(self, *args, **keywords)
        _begin(self._writer)

    @functools.wraps(run)
    def run_watched(self: Any) -> None:
        try:
            run(self)  # returns when all workers have ended
        finally:
            # Some versions of loky raise after they have killed their workers, with tasks in the queue.
            if not any(process.is_alive() for process in list(self.processes.values())):
                _end(self.call_queue._writer)

    owner._SafeQueue.__init__ = init_watched
    owner._ExecutorManagerThread.run = run_watched


def watch_pool(module: ModuleType) -> None:
    """Have the Pools of a module give back the tasks that are lost with their workers.

    Parameters
    ----------
    module : module
        `multiprocessing.pool`, or a copy of it.
    """
    owner: Any = module
    set_up, terminate = owner.Pool._setup_queues, owner.Pool._terminate_pool.__func__

    @functools.wraps(set_up)
    def set_up_watched(self: Any) -> None:
        set_up(self)
        _begin(self._inqueue._writer)

    @functools.wraps(terminate)
    def terminate_watched(cls: Any, taskqueue: Any, inqueue: Any, *args: Any, **keywords: Any) -> None:
        terminate(cls, taskqueue, inqueue, *args, **keywords)  # returns when all workers have ended
        _end(getattr(inqueue, "_writer", None))

    owner.Pool._setup_queues = set_up_watched
    owner.Pool._terminate_pool = classmethod(terminate_watched)
