"""Whole objects: their arrays in shared memory, and messages of one's own that carry them.

An object is pickled by protocol 5 (PEP 574), which leaves the data of arrays, and of other objects that have
a buffer, out of the pickle. That data is copied into one block of shared memory, or left where it is if it
lies in shared memory already. The pickle itself, which says what objects are to be made, is never put
there: it stays in private memory, and travels in the message.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import sys
from collections.abc import Callable
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from sharedmem._messages import by_value, current_message, holding
from sharedmem._out_of_band import reduce_array
from sharedmem._pieces import Pieces, gather
from sharedmem._startup import import_lock
from sharedmem.array import SharedArray

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["dumps", "loads", "share"]

_T = TypeVar("_T")
_Sources = list["SharedArray | None"]

PROTOCOL = 5  # the first one that leaves data out


def _reducers() -> dict[type, Callable[[Any], Any]]:
    """What pickles objects of these classes, in place of what they say themselves."""
    table: dict[type, Callable[[Any], Any]] = {np.ndarray: reduce_array}
    if "torch" in sys.modules:
        with import_lock:
            from sharedmem._transfers.tensors import reducers

        table |= reducers(sys.modules["torch"])
    if "pandas" in sys.modules:
        with import_lock:
            from sharedmem._integrations import pandas_

        for name in pandas_.MODULES:
            if name in sys.modules:
                table |= dict.fromkeys(pandas_.kinds(sys.modules[name]), _reduce_column)
    return table | copyreg.dispatch_table


def _reduce_column(column: Any) -> Any:
    with import_lock:
        from sharedmem._integrations.pandas_ import reduce_column

    return reduce_column(column, PROTOCOL, False)


def _pickle(obj: Any) -> tuple[bytes, list[PickleBuffer], pickle.Pickler]:
    """The pickle of an object, the data that was left out of it, and what keeps all that it refers to.

    An object may make shared arrays only to be pickled. A handle does not keep them; the pickler does.
    """
    buffers: list[PickleBuffer] = []
    stream = io.BytesIO()
    # Neither of the two refers to the pickler: in a cycle it would keep the data until garbage is collected.
    pickler = pickle.Pickler(stream, PROTOCOL, buffer_callback=buffers.append)
    pickler.dispatch_table = _reducers()
    pickler.dump(obj)
    return stream.getvalue(), buffers, pickler


def _receive(sources: _Sources, table: bytes, stream: bytes) -> Any:
    """The object of a message; what the bytes of `dumps` call.

    Parameters
    ----------
    sources : list
        The memory in which the object's data lies, or will lie.
    table : bytes
        Where in it; see `sharedmem._pieces.gather`.
    stream : bytes
        The pickle of the object.

    Returns
    -------
    object
        Its arrays lie in `sources`, and keep them.

    Raises
    ------
    ValueError
        The table makes no sense.
    """
    return pickle.loads(stream, buffers=Pieces(sources, table))


def share(obj: _T, /) -> _T:
    """Copy of an object whose arrays lie in shared memory.

    Everything in it has the type that it had: an ndarray, a DataFrame, a sparse matrix, an Arrow table, a
    dict or dataclass of these. It is copied as pickling copies, except for the data of arrays and buffers, of
    whatever size. That is copied once, all of it into one block of memory, and not at all if it lies in
    shared memory already.

    Parameters
    ----------
    obj : object
        Anything that can be pickled.

    Returns
    -------
    object
        It keeps its memory alive by itself, as any shared array does. Any array of it keeps the
        whole block. `is_shared` is true of its arrays, and false of what holds them.

    Raises
    ------
    MemoryError
        No room: the message gives bytes asked for, bytes available, the limit met and what raises it.
    Exception
        What pickling or unpickling the object raises: `pickle.PicklingError`, `TypeError`,
        `AttributeError` and others.

    Notes
    -----
    Shared are exact ndarrays of every dtype without Python objects, buffers of Arrow, tensors of torch on the
    CPU, and all that hands its data to pickle's protocol 5 [1]_. Copied into private memory are ``str``,
    ``bytes``, ``bytearray``, arrays of objects, masked arrays, record arrays, other subclasses of ndarray,
    and what a library copies when it is unpickled, as scikit-learn does with its trees.

    The copy of a read-only ndarray is writable; one that is not copied stays read-only. Any thread may call
    this. Other threads and processes may write into the arrays meanwhile; which of the values the copy then
    has is not defined.

    References
    ----------
    .. [1] PEP 574, Pickle protocol 5 with out-of-band data.

    Examples
    --------
    >>> shared = sharedmem.share({"x": np.arange(3.0), "name": "a"})
    >>> type(shared["x"]).__name__, sharedmem.is_shared(shared["x"])
    ('ndarray', True)
    """
    # No handle in here travels: it needs no lease of a message that is being pickled around this call, and
    # must not become a copy.
    within, values = current_message.set(None), by_value.set(False)
    try:
        stream, buffers, kept = _pickle(obj)
        shared: _T
        if buffers:
            sources, table = gather(buffers)
            shared = _receive(sources, table, stream)
        else:
            shared = pickle.loads(stream)
        del kept
    finally:
        by_value.reset(values)
        current_message.reset(within)
    return shared


class _Message:
    """Pickles as a call of `_receive`."""

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _receive, self.args


@holding
def _dumps(obj: Any) -> bytes:
    stream, buffers, _ = _pickle(obj)
    if not buffers:
        return stream
    sources, table = gather(buffers)
    del buffers
    return pickle.dumps(_Message(sources, table, stream), PROTOCOL)


def dumps(obj: object, /) -> bytes:
    """Message with an object in it, for a socket or whatever else carries bytes.

    The message has a few hundred bytes, and what of the object is no array. The data of arrays and buffers is
    copied into shared memory, as by `share`, and not at all if it lies there already.

    Parameters
    ----------
    obj : object
        Anything that can be pickled.

    Returns
    -------
    bytes
        For `loads`, in any process of the same user on this host. They hold the memory until they are
        loaded once, or given up by `revoke`; the sender may drop the object. Loaded again they raise
        StaleHandleError, unless somebody still has the arrays.

    Raises
    ------
    MemoryError
        No room, or the messages of this process hold as much as ``SHAREDMEM_IN_FLIGHT_LIMIT`` allows; the
        error has the numbers.
    Exception
        What pickling the object raises. Nothing is held then.

    Notes
    -----
    For many readers keep ``s = share(obj)``, and send ``dumps(s)`` to each: that copies nothing. The bytes
    are not for files, since the memory goes when nobody uses it any more; within `pickle_by_value` they have
    the data itself. A message that nobody loads holds its memory as long as this process lives, unless
    `revoke` is called.

    If this process ends and no other process has its arena (no child of it, and none that has received an
    array from it), the memory stays for ``SHAREDMEM_LINGER`` seconds after its end, by default 10; if it is
    killed by ``SIGKILL``, the memory is lost at once.

    Any thread may call it.

    Examples
    --------
    >>> message = sharedmem.dumps({"x": np.ones((1000, 1000)), "name": "a"})
    >>> len(message) < 1000
    True
    >>> bool(sharedmem.loads(message)["x"].sum() == 1_000_000)
    True
    """
    return pickle.dumps(obj, PROTOCOL) if by_value.get() else _dumps(obj)


def loads(data: Buffer, /) -> Any:
    """The object of a message that `dumps` made.

    Parameters
    ----------
    data : bytes-like object
        What `dumps` returned, in this process or another one; any other pickle is loaded, too. As every
        pickle it can run any code: load only what comes from somebody whom you trust.

    Returns
    -------
    object
        Of the same type as the one that was sent. Its arrays lie in the shared memory that the message
        held: nothing is copied, and whoever else has them sees what is written into them.

    Raises
    ------
    StaleHandleError
        The memory has gone, since the message was loaded before, or its sender ended too long ago; or it
        lies on another host.
    OSError
        The system refuses the memory: PermissionError if it is another user's, ENOMEM if there is no address
        space for it.
    ValueError
        The message is altered.
    TypeError
        `data` has no bytes.
    Exception
        What `pickle.loads` raises.
    """
    try:
        view = memoryview(data)
    except TypeError:
        raise TypeError(f"loads takes the bytes that dumps returned, not {type(data).__name__}") from None
    return pickle.loads(view)
