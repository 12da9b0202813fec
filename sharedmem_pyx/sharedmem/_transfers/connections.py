"""Hooks by which multiprocessing's connections notify `sharedmem._in_flight`, and which of them carry values.

Every transfer of multiprocessing writes and reads by ``Connection._send_bytes`` and ``_recv_bytes``: `Pipe`,
`Queue`, `SimpleQueue`, `Pool`, `concurrent.futures`. They are replaced here, and so are the functions that
make, close and send connections.

`Connection.send` pickles by value if the connection may lead to another host, where a handle would be
invalid.
"""

import functools
import os
import socket
import stat
import sys
from multiprocessing import connection, reduction
from types import ModuleType
from typing import Any

from sharedmem import _in_flight
from sharedmem._transfers.saving import always_by_value


def _leads_elsewhere(conn: Any) -> bool:
    """Whether the other end may be on another host: true for sockets other than those of Unix."""
    found: bool | None = conn._sharedmem_elsewhere
    if found is None:
        found = False
        if stat.S_ISSOCK(os.fstat(conn._handle).st_mode):
            # A socket object closes its descriptor, also if this function is interrupted (Ctrl-C).
            with socket.socket(fileno=os.dup(conn._handle)) as same:
                found = same.family != getattr(socket, "AF_UNIX", None)  # Python has it not on Windows
        conn._sharedmem_elsewhere = found
    return found


def rebuild(df: Any, readable: bool, writable: bool, end: tuple[str, int]) -> Any:
    """Make a connection that was sent to this process.

    Its pickle names this function, so that the library is imported here before the connection is read.

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


def giving_up(method: Any, variable: str) -> Any:
    """A version of a method that reads and loads a message; it frees the memory of one that cannot be loaded.

    If an object raises while it is loaded, the rest of the message cannot be loaded either. Its bytes are
    then in a local variable of the method, where they are found by the traceback.

    Parameters
    ----------
    method : callable
        Such as `Connection.recv`.
    variable : str
        The name of its local variable that has the bytes, or a BytesIO with them, once they were read.
    """

    @functools.wraps(method)
    def received(*args: Any, **keywords: Any) -> Any:
        try:
            return method(*args, **keywords)
        except BaseException as error:
            trace = error.__traceback__ and error.__traceback__.tb_next
            if trace is not None and trace.tb_frame.f_code is method.__code__:
                data = trace.tb_frame.f_locals.get(variable)
                if data is not None:
                    _in_flight.give_up(data.getbuffer() if hasattr(data, "getbuffer") else data)
            raise

    return received


def watch_queues(module: ModuleType) -> None:
    """Make the queues of `multiprocessing.queues`, or of a copy of it, free messages that cannot be loaded.

    Parameters
    ----------
    module : module
        It has the classes Queue and SimpleQueue.
    """
    for name in ("Queue", "SimpleQueue"):
        cls = getattr(module, name)
        cls.get = giving_up(cls.get, "res")


def watch(module: ModuleType, reducing: ModuleType = reduction, rebuild: Any = rebuild) -> None:
    """Make the connections of `multiprocessing.connection`, or of a copy of it, keep the ledger.

    Parameters
    ----------
    module : module
        It has a class Connection and functions Pipe and reduce_connection.
    reducing : module, optional
        What the module imports from `multiprocessing.reduction`.
    rebuild : callable, optional
        Makes a connection that was sent, as the function of this name does for multiprocessing.
    """
    owner: Any = module
    cls = owner.Connection
    plain_send, plain_fileno, plain_pipe = cls.send, cls.fileno, owner.Pipe
    plain_reduce, duplicate = owner.reduce_connection, reducing.DupFd
    send_values = always_by_value(plain_send)

    def send(self: Any, obj: Any) -> None:
        """Send a (picklable) object"""
        (send_values if not self.closed and _leads_elsewhere(self) else plain_send)(self, obj)

    def fileno(self: Any) -> int:
        """File descriptor or handle of the connection"""
        # Selectors, which `wait` and `poll` use, request the descriptor too, but read nothing.
        if self._sharedmem_end is not None and sys._getframe(1).f_globals.get("__name__") != "selectors":
            _in_flight.say_read_elsewhere(self._sharedmem_end)
        number: int = plain_fileno(self)
        return number

    def pipe(duplex: bool = True) -> Any:
        pair = plain_pipe(duplex)
        ends = _in_flight.new_ends()
        if ends is not None:
            for each, end in zip(pair, ends, strict=True):
                each._sharedmem_end = end
        return pair

    def reduce(conn: Any) -> Any:
        end = conn._sharedmem_end
        if end is None:
            return plain_reduce(conn)
        conn._check_closed()
        if not (conn.readable and conn.writable):
            # The kernel reports enough about a pipe: its reader need not import this library before it reads.
            _in_flight.say_read_elsewhere(end)
            return plain_reduce(conn)
        return rebuild, (duplicate(conn._handle), conn.readable, conn.writable, end)

    cls._sharedmem_out = None  # of `sharedmem._ledger`
    cls._sharedmem_end = None
    cls._sharedmem_elsewhere = None
    cls._sharedmem_to_workers = False
    cls._send_bytes = _in_flight.send_bytes
    cls._recv_bytes = _in_flight.recv_bytes
    cls._close = _in_flight.close
    cls.recv = giving_up(cls.recv, "buf")
    cls.send = send
    cls.fileno = fileno
    pipe.__doc__ = plain_pipe.__doc__
    owner.Pipe = pipe
    reducing.register(cls, reduce)


def watch_without_descriptors(module: ModuleType) -> None:
    """Do the parts of `watch` that are possible on Windows, where connections have no descriptors.

    The state of a pipe's other end cannot be determined there, so no ledger is kept: messages that are lost
    with a reader stay until their sender ends. Connections that are not pipes are sockets, which may lead to
    another host: they send by value.

    Parameters
    ----------
    module : module
        As for `watch`; its Connection is for sockets, its PipeConnection for pipes.
    """
    owner: Any = module
    owner.Connection.send = always_by_value(owner.Connection.send)
    for cls in (owner.Connection, owner.PipeConnection):
        cls.recv = giving_up(cls.recv, "buf")


def install() -> None:
    """Make the connections of multiprocessing keep the ledger, if that is possible."""
    if sys.platform == "win32":
        watch_without_descriptors(connection)
    else:
        watch(connection)
