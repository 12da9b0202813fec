"""An array that cannot be loaded is an error of its task, not the end of a pool of processes.

A worker of `multiprocessing.Pool` that reads a task takes every OSError for the end of its pipe and exits
silently; any other error ends it with a traceback. The thread that reads the results does the same. In all
these cases there is no answer, and the caller waits for the result for ever. A `ProcessPoolExecutor` breaks
as a whole and does not say why.

Therefore a task with shared arrays is sent in a way that can always be loaded: the error is raised when the
worker calls the task's function, and reported like any error of it. An error in loading the result of a Pool
becomes the result.
"""

from __future__ import annotations

import contextlib
import functools
import io
import pickle
import re
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from types import ModuleType
from typing import Any, NoReturn

from sharedmem._handles import _drop

# The modules to which a pickled handle refers.
_with_arrays = re.compile(rb"sharedmem\.(?:array|_file_handles|_integrations)").search


class _Nothing:
    """Replaces every object in a message of which only its number is read."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        pass

    def __call__(self, *args: Any, **keywords: Any) -> _Nothing:
        return self

    __setstate__ = __setitem__ = append = extend = __call__


def _drop_array(handle: bytes, *rest: Any) -> _Nothing:
    """Replaces the function that loads a handle: the message does not keep the array any longer."""
    with contextlib.suppress(Exception):
        _drop(handle)
    return _Nothing()


def _drop_buffer(load: Any, *args: Any) -> Any:
    """Replaces a function that calls `load` with a handle."""
    return load(*args)


# Replacements for functions in a message of which only its number is read.
_DROPPING = {
    ("sharedmem.array", "_load"): _drop_array,
    ("sharedmem.array", "_load_exact"): _drop_array,
    ("sharedmem.array", "_copy_out"): _drop_array,
    ("sharedmem._integrations.arrow_", "load_buffer"): _drop_buffer,
    ("sharedmem._integrations.arrow_", "load_mutable_buffer"): _drop_buffer,
}


class _Numbers(pickle.Unpickler):
    """Makes no objects but an executor's task, tuples, lists, dicts, numbers and text."""

    def find_class(self, module: str, name: str) -> Any:
        dropping = _DROPPING.get((module, name))
        if dropping is not None:
            return dropping
        if (module, name) == ("concurrent.futures.process", "_CallItem"):
            return super().find_class(module, name)
        return _Nothing


def _numbers(message: bytes) -> Any:
    return _Numbers(io.BytesIO(message)).load()


def _raise(error: Exception) -> NoReturn:
    raise error


def open_task(message: bytes, loads: Callable[[bytes], Any] = ForkingPickler.loads) -> Any:
    """The task of a message; if that cannot be loaded, one with the same number that raises the error."""
    try:
        return loads(message)
    except Exception as error:
        task = _numbers(message)
        if isinstance(task, tuple):
            return (*task[:2], _raise, (error,), {})
        task.fn, task.args, task.kwargs = _raise, (error,), {}
        return task


def _wrapped(message: bytes, opening: Any) -> bytes:
    """The pickle, in protocol 4 (PEP 3154), of a task that the function `opening` gives for the message."""
    module, name = opening.__module__.encode(), opening.__qualname__.encode()
    return b"\x80\x04\x8c%c%b\x8c%c%b\x93B%b%b\x85R." % (
        len(module),
        module,
        len(name),
        name,
        len(message).to_bytes(4, "little"),
        message,
    )


def _wrapping(send_bytes: Callable[[Any], None], opening: Any) -> Callable[[Any], None]:
    def send_wrapped(message: Any) -> None:
        size = len(message)
        # A message of more than 4 GiB has its data in it, and needs another opcode than the one that is used
        # here.
        send_bytes(_wrapped(bytes(message), opening) if size < 1 << 32 and _with_arrays(message) else message)

    return send_wrapped


def _sending(pipe: Connection, pickler: Any, opening: Any) -> Callable[[Any], None]:
    send_wrapped = _wrapping(pipe.send_bytes, opening)
    return lambda task: send_wrapped(pickler.dumps(task))


def _receiving(pipe: Connection, pickler: Any) -> Callable[[], Any]:
    def get() -> Any:
        message = pipe.recv_bytes()
        try:
            return pickler.loads(message)
        except Exception as error:
            job, index, _ = _numbers(message)
            return job, index, (False, error)

    return get


def watch_pool(module: ModuleType, pickler: Any = ForkingPickler, opening: Any = open_task) -> None:
    """Make the Pools of a module report what could not be loaded.

    Parameters
    ----------
    module : module
        `multiprocessing.pool`, or a copy of it.
    pickler : type, optional
        Its pickler.
    opening : callable, optional
        Found by its name in the workers; gives the task of a message, as `open_task` does.
    """
    set_up = module.Pool._setup_queues

    @functools.wraps(set_up)
    def set_up_watched(self: Any) -> None:
        set_up(self)
        self._quick_put = _sending(self._inqueue._writer, pickler, opening)
        self._quick_get = _receiving(self._outqueue._reader, pickler)

    module.Pool._setup_queues = set_up_watched


def watch_executor(module: ModuleType) -> None:
    """Make the executors of `concurrent.futures.process` report which task could not be loaded, and why."""
    init = module._SafeQueue.__init__

    @functools.wraps(init)
    def init_watched(self: Any, *args: Any, **keywords: Any) -> None:
        init(self, *args, **keywords)
        self._send_bytes = _wrapping(self._send_bytes, open_task)

    module._SafeQueue.__init__ = init_watched
