"""What multiprocessing's connections tell `sharedmem._in_flight`.

Every transfer of multiprocessing writes and reads by ``Connection._send_bytes`` and ``_recv_bytes``: `Pipe`,
`Queue`, `SimpleQueue`, `Pool`, `concurrent.futures`. They are replaced here, and so are the functions that
make, close and send connections.
"""

from __future__ import annotations

import sys
from multiprocessing import connection, reduction
from multiprocessing.connection import Connection
from typing import Any

from sharedmem import _in_flight

_plain_fileno = Connection.fileno
_plain_pipe: Any = connection.Pipe
_plain_reduce: Any = connection.reduce_connection  # type: ignore[attr-defined]


def _fileno(self: Any) -> int:
    """File descriptor or handle of the connection"""
    # Selectors, those of `wait` and `poll` among them, ask for the descriptor too, but read nothing.
    if self._sharedmem_end is not None and sys._getframe(1).f_globals.get("__name__") != "selectors":
        _in_flight.say_read_elsewhere(self._sharedmem_end)
    return _plain_fileno(self)


def _pipe(duplex: bool = True) -> Any:
    pair = _plain_pipe(duplex)
    ends = _in_flight.new_ends()
    if ends is not None:
        for each, end in zip(pair, ends, strict=True):
            each._sharedmem_end = end
    return pair


def _reduce(conn: Any) -> Any:
    end = conn._sharedmem_end
    if end is None:
        return _plain_reduce(conn)
    conn._check_closed()
    if not (conn.readable and conn.writable):
        # The kernel says enough about a pipe: its reader need not import this library before it reads.
        _in_flight.say_read_elsewhere(end)
        return _plain_reduce(conn)
    return rebuild, (reduction.DupFd(conn._handle), conn.readable, conn.writable, end)


def rebuild(df: Any, readable: bool, writable: bool, end: tuple[str, int]) -> Any:
    """A connection that was sent to this process, which imports the library before it reads for this.

    Parameters
    ----------
    df : object
        What `multiprocessing.reduction.DupFd` made of its descriptor.
    readable, writable : bool
        As its attributes.
    end : tuple
        See `_in_flight.new_ends`.

    Returns
    -------
    multiprocessing.connection.Connection
        The same end.
    """
    conn = connection.rebuild_connection(df, readable, writable)  # type: ignore[attr-defined]
    conn._sharedmem_end = end
    return conn


def install() -> None:
    """Have the connections of multiprocessing keep the ledger."""
    cls: Any = Connection
    cls._sharedmem_out = None  # of `sharedmem._ledger`
    cls._sharedmem_end = None
    cls._send_bytes = _in_flight.send_bytes
    cls._recv_bytes = _in_flight.recv_bytes
    cls._close = _in_flight.close
    cls.fileno = _fileno
    _pipe.__doc__ = _plain_pipe.__doc__
    connection.Pipe = _pipe
    reduction.register(Connection, _reduce)
