"""`sharedmem.transport`: its setting in this process, and in the processes that are started from it."""

from __future__ import annotations

import os
import threading
import weakref
from multiprocessing import process
from types import TracebackType
from typing import Any

from sharedmem._sizes import check_bytes, read_size
from sharedmem._startup import free_in_child
from sharedmem._transfers.reducing import never_zero_copy, set_transport, zero_copy

# Children find the setting in two places: a variable that every kind of child inherits, and a key of the
# configuration that travels with each Process object, also to children of a fork server that is older than
# it.
_VARIABLE = "SHAREDMEM_TRANSPORT"
_KEY = "sharedmem.transport"

_DEFAULT = 65536

_OFF = ""
_now = _OFF

# The settings that can still be closed, in the order in which they were made.
_open: list[weakref.ref[transport]] = []
_changing = threading.RLock()  # a signal handler, or a destructor, may close one in the middle
# Another thread may hold it while a child is forked.
free_in_child(_changing)


class _Carried:
    """The setting of a process, as a part of a child's configuration: loading it applies it there."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return take_over, (self.text,)


def take_over(text: str) -> _Carried:
    """Apply the setting that the parent of this process had when it started this process.

    Parameters
    ----------
    text : str
        In the format of the environment variable.
    """
    apply(text)
    return _Carried(text)


def _number(name: str, value: Any, least: int) -> int:
    return check_bytes(name, value, least, 63)


def _text(min_bytes: int, copy: bool, max_in_flight: int | None) -> str:
    text = f"min_bytes={min_bytes},copy={int(copy)}"
    return text if max_in_flight is None else f"{text},max_in_flight={max_in_flight}"


def _read_part(part: str) -> tuple[str, int]:
    name, _, value = (text.strip() for text in part.partition("="))
    if name == "copy" and value in ("0", "1"):
        return name, int(value)
    nbytes = read_size(value) if name in ("min_bytes", "max_in_flight") else None
    if nbytes is None:
        raise ValueError(
            f"{_VARIABLE}: {part!r} is invalid; the variable is 1, 0, or a list such as "
            "'min_bytes=64KiB,copy=1,max_in_flight=1GiB', of which parts can be left out"
        )
    return name, nbytes


def _read(text: str) -> tuple[int, bool, int | None] | None:
    """The arguments of `transport` that a text describes; None: it is off."""
    text = text.strip()
    if text in ("", "0"):
        return None
    if text == "1":
        return _DEFAULT, True, None
    parts = dict(_read_part(part) for part in text.split(","))
    limit = parts.get("max_in_flight")
    return (
        _number(f"{_VARIABLE}: min_bytes", parts.get("min_bytes", _DEFAULT), 1),
        bool(parts.get("copy", 1)),
        limit if limit is None else _number(f"{_VARIABLE}: max_in_flight", limit, 0),
    )


def apply(text: str) -> None:
    """Apply a setting in the format of the environment variable, for this process and those it starts.

    Parameters
    ----------
    text : str
        The text.

    Raises
    ------
    ValueError
        It is invalid.
    """
    global _now
    read = _read(text)
    if read is None:
        set_transport(0, never_zero_copy)
    else:
        min_bytes, copy, max_in_flight = read
        set_transport(min_bytes, never_zero_copy if copy else zero_copy, max_in_flight)
    if text != os.environ.get(_VARIABLE):
        os.environ[_VARIABLE] = text
    config: dict[str, Any] = process.current_process()._config  # type: ignore[attr-defined]
    # Also if the setting is off, since a fork server may have been started while it was on.
    config[_KEY] = _Carried(text)
    _now = text


class transport:
    """Send the data of large arrays through shared memory instead of the pipe, from now on.

    Messages of `multiprocessing` (`Pool`, `Queue`, `Pipe`, `Process` arguments and the like),
    `concurrent.futures`, loky, joblib and multiprocess keep their meaning but become faster: the receiver of
    an ordinary array gets its own copy, exact and writable, whatever object contains the array: a dict, a
    dataclass, a DataFrame, a sparse matrix, an Arrow table. An ndarray that lies in shared memory, also one
    that NumPy created within `allocator`, is not an ordinary one: it is shared. The
    setting applies to the whole process, and to the processes that it starts from now on, by any start
    method.

    Parameters
    ----------
    min_bytes : int, optional
        Messages with less array data than this are sent as usual.
    copy : bool, optional
        False avoids the receiver's copy of arrays of 1 MiB and more: they arrive as ndarrays *in* shared
        memory that no other process has. They differ from private ones in two ways: when sent on, they are
        shared and not copied, and a process that is forked later shares them with its parent.
    max_in_flight : int, optional
        Bytes that messages of one process may keep in shared memory until they are read. By default 1/16 of
        the memory that machine and cgroup allow. Messages beyond that go through the pipe.

    Raises
    ------
    TypeError
        `min_bytes` or `max_in_flight` is not an int, or `copy` not a bool.
    ValueError
        `min_bytes` is less than 1, or `max_in_flight` is negative.

    See Also
    --------
    stats : Its ``transport`` counts messages, and those that went through the pipe although they were large.

    Notes
    -----
    The call enables it; as a context manager it restores the former setting at the end, and so does
    `close`. The environment variable ``SHAREDMEM_TRANSPORT`` sets it where the library is imported: ``1``,
    ``0``, or a list such as ``min_bytes=64KiB,copy=1,max_in_flight=1GiB``. It is not a decorator: the call
    applies the setting, not entering a function.

    Sending never waits for memory and never fails where pickling would not: if memory is short, the data
    goes through the pipe. It is for processes of one user: a worker that has become another user
    (``os.setuid``) sends its data through the pipe, but cannot load what is then sent to it in new memory.
    Connections to another host (TCP) carry values. Joblib still writes large arguments to files that its
    workers map; ``max_nbytes=None`` disables that.

    A copy of 1 MiB or more arrives, if it can, in private memory of an array that arrived before and was
    dropped, because fresh memory takes longer to get than the copy. Each process keeps at most 32 MiB of such
    memory; `cleanup` frees it.

    Settings may overlap: closing one that is not the newest leaves the newest in effect. Any thread may call
    it; messages that are being pickled at that moment use the former setting or the new one.

    Examples
    --------
    >>> from multiprocessing import get_context
    >>> with sharedmem.transport(), get_context("fork").Pool(2) as pool:
    ...     results = pool.map(np.cumsum, [np.ones(100_000)] * 4)
    >>> [float(each[-1]) for each in results]
    [100000.0, 100000.0, 100000.0, 100000.0]
    """

    def __init__(
        self, min_bytes: int = _DEFAULT, *, copy: bool = True, max_in_flight: int | None = None
    ) -> None:
        self.min_bytes = _number("min_bytes", min_bytes, 1)
        if not isinstance(copy, bool):
            raise TypeError(f"copy must be True or False, not {copy!r}")
        self.copy = copy
        self.max_in_flight = None if max_in_flight is None else _number("max_in_flight", max_in_flight, 0)
        with _changing:
            self._before: str | None = _now
            apply(_text(self.min_bytes, self.copy, self.max_in_flight))
            _open[:] = [each for each in _open if each() is not None]
            _open.append(weakref.ref(self))

    def close(self) -> None:
        """Restore the previous setting; once.

        If another one was made meanwhile and is not closed, that stays in effect, and restores what this one
        would have.
        """
        with _changing:
            before, self._before = self._before, None
            if before is None:
                return
            # A setting without references cannot be closed any more, and must not stay in effect for that.
            later = [each for each in (ref() for ref in _open) if each is not None]
            at = later.index(self)
            _open[:] = [weakref.ref(each) for each in later if each is not self]
            if at + 1 < len(later):
                later[at + 1]._before = before
            else:
                apply(before)

    def __enter__(self) -> transport:
        if self._before is None:
            raise ValueError("this setting has already been restored; create a new one")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"transport({self.min_bytes}, copy={self.copy}, max_in_flight={self.max_in_flight})"
