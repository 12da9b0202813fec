"""Shared memory between the processes of a Dask cluster that can use each other's memory.

>>> from distributed import Client, LocalCluster  # doctest: +SKIP
>>> client = Client(LocalCluster(protocol="sharedmem"))  # doctest: +SKIP

From the command line: ``dask scheduler --protocol sharedmem``, and ``dask worker sharedmem://HOST:8786``. For
clusters of ``tcp://`` or ``tls://`` addresses, `sharedmem.dask.preload` is a preload of scheduler, workers
and clients. It is tested with distributed 2026.8.
"""

from __future__ import annotations

import inspect
import warnings
from typing import Any

from sharedmem._startup import import_lock

__all__ = ["backend", "install", "tally"]


def _missing() -> str | None:
    """What the comms need and this version of Dask lacks; None: nothing."""
    try:
        from distributed.comm import core, tcp
        from distributed.comm.utils import from_frames, to_frames  # noqa: F401
        from distributed.protocol import dumps
        from distributed.utils import nbytes, offload  # noqa: F401
    except ImportError as error:
        return str(error)
    for owner, names in (
        (tcp.TCPBackend, ("_connector_class", "_listener_class", "get_listener")),
        (tcp.TLSBackend, ("_connector_class", "_listener_class", "get_listener")),
        (tcp.TCPConnector, ("comm_class", "prefix")),
        (tcp.TCPListener, ("comm_class", "prefix")),
        (core.Comm, ("handshake_info", "handshake_configuration", "read", "write", "close", "abort")),
    ):
        for name in names:
            if not hasattr(owner, name):
                return f"{owner.__module__}.{owner.__qualname__} has no {name}"
    for method, function in ((tcp.TCP.write, "to_frames"), (tcp.TCP.read, "from_frames")):
        code = getattr(method, "__code__", None)
        if code is None or code.co_freevars or function not in code.co_names:
            return f"distributed.comm.tcp.TCP.{method.__name__} does not call {function}"
    if "frame_split_size" not in inspect.signature(dumps).parameters:
        return "distributed.protocol.dumps has no frame_split_size"
    return None


def _warn(missing: str) -> None:
    import distributed

    warnings.warn(
        f"sharedmem does not know this version of distributed, {distributed.__version__}, which sends values "
        f"as if sharedmem were not there: {missing}",
        RuntimeWarning,
        stacklevel=3,
    )


def _need_distributed() -> None:
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise ImportError(
            "sharedmem.dask needs Dask's distributed: pip install 'numpy-sharedmem[dask]'"
        ) from None


def backend() -> Any:
    """Return the backend for addresses that begin with ``sharedmem://``; Dask calls this function.

    Returns
    -------
    distributed.comm.registry.Backend
        For a version of Dask that lacks what it needs, one that sends values, after a RuntimeWarning.

    Raises
    ------
    ImportError
        distributed is not installed.
    """
    _need_distributed()
    missing = _missing()
    if missing is None:
        with import_lock:
            from sharedmem._engines.dask_comm import SharedMemoryBackend

        return SharedMemoryBackend()
    _warn(missing)
    from distributed.comm import tcp

    connector = type("Connector", (tcp.TCPConnector,), {"prefix": "sharedmem://"})
    listener = type("Listener", (tcp.TCPListener,), {"prefix": "sharedmem://"})
    return type("Backend", (tcp.TCPBackend,), {"_connector_class": connector, "_listener_class": listener})()


def install() -> bool:
    """Make connections of ``tcp://`` and ``tls://`` use shared memory, from now on, in this process.

    `sharedmem.dask.preload` calls it. Both ends of a connection must have called it before the connection was
    made; connections to other processes carry values. It can be called repeatedly.

    Returns
    -------
    bool
        False: this version of Dask lacks what is needed, and a RuntimeWarning was issued.

    Raises
    ------
    ImportError
        distributed is not installed.
    """
    _need_distributed()
    missing = _missing()
    if missing is not None:
        _warn(missing)
        return False
    from distributed.comm.registry import backends

    with import_lock:
        from sharedmem._engines import dask_comm

    for scheme, kind in (("tcp", dask_comm.SharingTCPBackend), ("tls", dask_comm.SharingTLSBackend)):
        if not isinstance(backends.get(scheme), kind):
            backends[scheme] = kind()
    return True


def tally() -> dict[str, int]:
    """Report what connections of this process have sent and received by handle.

    Returns
    -------
    dict
        handles, bytes
            Frames that were sent by handle, and their size in bytes.
        carried
            Bytes of those that were copied into shared memory for this.
        opened
            Frames that were received by handle.

    Raises
    ------
    ImportError
        distributed is not installed.
    """
    _need_distributed()
    with import_lock:
        from sharedmem._engines.dask_comm import tally as of_comms

    return of_comms()
