"""What a worker of Dask needs besides its connections."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import sharedmem

_PART = 10  # the part of a worker's memory_limit that warm memory of its arena may have


def follow_memory_limit(server: Any) -> None:
    """Keep little warm memory where a worker has little memory.

    Dask measures the resident memory of a worker, in which free memory that is kept for new arrays counts,
    and pauses or ends a worker that has more than its ``memory_limit``. By default this library keeps a
    quarter of the machine's memory.

    Parameters
    ----------
    server : object
        A server of Dask that is about to listen. Nothing is done unless it is a worker with a limit.
    """
    worker = getattr(sys.modules.get("distributed.worker"), "Worker", None)
    if worker is None or not isinstance(server, worker) or os.environ.get("SHAREDMEM_CACHE_LIMIT"):
        return
    limit = getattr(getattr(server, "memory_manager", None), "memory_limit", None)
    if not limit:
        return
    with contextlib.suppress(OSError, MemoryError):  # without an arena there is nothing to be limited
        if sharedmem.memory_limit()["cache"] > int(limit) // _PART:
            sharedmem.memory_limit(cache=int(limit) // _PART)


def add_default_host(server: Any, connection_args: dict[str, Any]) -> None:
    """Have a worker that listens on all addresses report the one by which it reaches the scheduler.

    Dask's workers do so themselves only for ``tcp://`` and ``tls://``.

    Parameters
    ----------
    server : object
        A server of Dask that is about to listen.
    connection_args : dict
        What the listener is made with; gains ``default_host``.
    """
    worker = getattr(sys.modules.get("distributed.worker"), "Worker", None)
    if worker is None or not isinstance(server, worker) or "default_host" in connection_args:
        return
    with contextlib.suppress(Exception):  # Dask finds an address then
        from distributed.comm.addressing import get_address_host
        from distributed.utils import get_ip

        connection_args["default_host"] = get_ip(get_address_host(server.scheduler.address))
