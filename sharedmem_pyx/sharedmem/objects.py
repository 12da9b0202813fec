"""Whole objects: their arrays in shared memory, and the program's own messages that carry them.

An object is pickled by protocol 5 (PEP 574), which leaves the data of arrays, and of other objects that have
a buffer, out of the pickle. That data is copied into one block of shared memory, or left where it is if it
lies in shared memory already. The pickle itself, which says what objects are to be created, is never put
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
    """Pickles objects of these classes by this library's rules instead of their own."""
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
    if "numpy.ma" in sys.modules:
        table[np.ma.MaskedArray] = _reduce_masked
    return table | copyreg.dispatch_table


def _reduce_masked(masked: Any) -> Any:
    """As the array itself does, but for its fill value, an array without dimensions, which becomes a scalar.

    All data of a masked array is in the pickle. A message must not keep memory for the fill value alone: it
    could be loaded only once.
    """
    create, arguments, state = masked.__reduce__()
    *others, fill_value = state
    if isinstance(fill_value, np.ndarray):
        fill_value = fill_value[()]
    return create, arguments, (*others, fill_value)


def _reduce_column(column: Any) -> Any:
    with import_lock:
        from sharedmem._integrations.pandas_ import reduce_column

    return reduce_column(column, PROTOCOL, False)


def _pickle(obj: Any) -> tuple[bytes, list[PickleBuffer], pickle.Pickler]:
    """The pickle of an object, the data that was left out of it, and objects that keep all this data.

    An object may create shared arrays only to be pickled. A handle does not keep them; the pickler does.
    """
    buffers: list[PickleBuffer] = []
    stream = io.BytesIO()
    # Neither of the two refers to the pickler: a cycle would keep the data until garbage is collected.
    pickler = pickle.Pickler(stream, PROTOCOL, buffer_callback=buffers.append)
    pickler.dispatch_table = _reducers()
    pickler.dump(obj)
    return stream.getvalue(), buffers, pickler


def _receive(sources: _Sources, table: bytes, stream: bytes) -> Any:
    """Return the object of a message; the bytes of `dumps` call this function.

    Parameters
    ----------
    sources : list
        The memory in which the object's data lies, or will lie.
    table : bytes
        Where in it each piece lies; see `sharedmem._pieces.gather`.
    stream : bytes
        The pickle of the object.

    Returns
    -------
    object
        Its arrays lie in `sources`, and keep them alive.

    Raises
    ------
    ValueError
        The table is invalid.
    """
    return pickle.loads(stream, buffers=Pieces(sources, table))


def share(obj: _T, /) -> _T:
    """Copy an object so that its arrays lie in shared memory.

    Everything in it keeps its type: an ndarray, a DataFrame, a sparse matrix, an Arrow table, a
    dict or dataclass of these. The object is copied as pickling copies it, except for the data of arrays and
    buffers of any size. All of that is copied once, into one block of memory; data that already lies in
    shared memory is not copied.

    Parameters
    ----------
    obj : object
        Anything that can be pickled.

    Returns
    -------
    object
        It keeps its memory alive by itself, as any shared array does. Each of its arrays keeps the
        whole block. `is_shared` returns True for its arrays, and False for objects that contain them.

    Raises
    ------
    MemoryError
        Not enough memory: the message has the bytes requested and available, the limit and its setting.
    Exception
        Whatever pickling or unpickling the object raises: `pickle.PicklingError`, `TypeError`,
        `AttributeError` and others.

    Notes
    -----
    Shared are exact ndarrays of every dtype without Python objects, buffers of Arrow, tensors of torch on the
    CPU, and everything that passes its data to pickle's protocol 5 [1]_. Copied into private memory are
    ``str``, ``bytes``, ``bytearray``, arrays of objects, masked arrays, record arrays, other subclasses of
    ndarray, and data that a library copies when it is unpickled, as scikit-learn does with its trees.

    The copy of a read-only ndarray is writable; one that is not copied stays read-only. Any thread may call
    this function. If other threads or processes write into the arrays meanwhile, it is not defined which
    values the copy has.

    References
    ----------
    .. [1] PEP 574, Pickle protocol 5 with out-of-band data.

    Examples
    --------
    >>> shared = sharedmem.share({"x": np.arange(3.0), "name": "a"})
    >>> type(shared["x"]).__name__, sharedmem.is_shared(shared["x"])
    ('ndarray', True)
    """
    # No handle in here travels, so none needs a lease of a message that is being pickled around this call,
    # and none may become a copy.
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
    """Pickled as a call of `_receive`."""

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
    """Create a message with an object, for a socket or any other channel that carries bytes.

    The message has a few hundred bytes, plus the parts of the object that are not arrays. The data of arrays
    and buffers is copied into shared memory, as by `share`; data that already lies there is not copied.

    Parameters
    ----------
    obj : object
        Anything that can be pickled.

    Returns
    -------
    bytes
        For `loads`, in any process of the same user on this host. They keep the memory until they are
        loaded once, or given up by `revoke`; the sender may drop the object. Loading them again raises
        StaleHandleError, unless some process still has the arrays.

    Raises
    ------
    MemoryError
        Not enough memory, or the messages of this process keep as much as ``SHAREDMEM_IN_FLIGHT_LIMIT``
        allows; the error has the numbers.
    Exception
        Whatever pickling the object raises. No memory is kept then.

    Notes
    -----
    For many readers keep ``s = share(obj)``, and send ``dumps(s)`` to each: that copies nothing. The bytes
    are not for files, since the memory is freed when no process uses it any more; within `pickle_by_value`
    they contain the data itself. A message that is never loaded keeps its memory as long as this process
    lives, unless `revoke` is called.

    If this process ends and no other process has its arena attached (no child of it, and none that has
    received an array from it), the memory stays for ``SHAREDMEM_LINGER`` seconds after its end, by default
    10; if it is killed by ``SIGKILL``, the memory is lost at once.

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
    """Load the object of a message that `dumps` made.

    Parameters
    ----------
    data : bytes-like object
        What `dumps` returned, in this process or another one; any other pickle is loaded, too. Like every
        pickle it can run any code: load only data from a source that you trust.

    Returns
    -------
    object
        Of the same type as the one that was sent. Its arrays lie in the shared memory that the message
        kept: nothing is copied, and all processes that have them see what is written into them.

    Raises
    ------
    StaleHandleError
        The memory was freed, because the message was loaded before or its sender ended too long ago; or it
        lies on another host.
    OSError
        The system refused the memory: PermissionError if it belongs to another user, ENOMEM if there is no
        address space for it.
    ValueError
        The message was altered.
    TypeError
        `data` is not a bytes-like object.
    Exception
        Whatever `pickle.loads` raises.
    """
    try:
        view = memoryview(data)
    except TypeError:
        raise TypeError(f"loads takes the bytes that dumps returned, not {type(data).__name__}") from None
    return pickle.loads(view)
