"""An array that cannot be loaded is an error of its task, not the end of a pool of processes.

A worker of `multiprocessing.Pool` that reads a task takes every OSError for the end of its pipe and leaves
without a word; any other error ends it with a traceback. The thread that reads the results does the same. In
all these cases nobody answers, and who waits for the result waits for ever. A `ProcessPoolExecutor` breaks as
a whole and does not say why.

Hence a task with shared arrays is sent in a way that can always be loaded: what was wrong is raised when the
worker calls the task's function, and reported as any error of it. What was wrong with the result of a Pool
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

_with_arrays = re.compile(rb"sharedmem\.array").search  # the module that a pickled handle names


class _Nothing:
    """Takes the place of every object in a message of which only its number is read."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        pass

    def __call__(self, *args: Any, **keywords: Any) -> _Nothing:
        return self

    __setstate__ = __setitem__ = append = extend = __call__


def _drop_array(handle: bytes, *rest: Any) -> _Nothing:
    """Takes the place of `_load`: the message does not keep the array any longer."""
    with contextlib.suppress(Exception):
        _drop(handle)
    return _Nothing()


class _Numbers(pickle.Unpickler):
    """Makes no objects but an executor's task, tuples, lists, dicts, numbers and text."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("sharedmem.array", "_load"):
            return _drop_array
        if (module, name) == ("concurrent.futures.process", "_CallItem"):
            return super().find_class(module, name)
        return _Nothing


def _numbers(message: bytes) -> Any:
    return _Numbers(io.BytesIO(message)).load()


def _raise(error: Exception) -> NoReturn:
    raise error


def _open(message: bytes) -> Any:
    """The task of a message; if that cannot be loaded, one with the same number that raises the error."""
    try:
        return ForkingPickler.loads(message)
    except Exception as error:
        task = _numbers(message)
        if isinstance(task, tuple):
            return (*task[:2], _raise, (error,), {})
        task.fn, task.args, task.kwargs = _raise, (error,), {}
        return task


class _Task:
    """What a pickled task is wrapped into."""

    def __init__(self, message: bytes) -> None:
        self.message = message

    def __reduce__(self) -> tuple[Callable[[bytes], Any], tuple[bytes]]:
        return _open, (self.message,)


def _wrapping(send_bytes: Callable[[Any], None]) -> Callable[[Any], None]:
    def send_wrapped(message: Any) -> None:
        send_bytes(ForkingPickler.dumps(_Task(bytes(message))) if _with_arrays(message) else message)

    return send_wrapped


def _sending(pipe: Connection) -> Callable[[Any], None]:
    send_wrapped = _wrapping(pipe.send_bytes)
    return lambda task: send_wrapped(ForkingPickler.dumps(task))


def _receiving(pipe: Connection) -> Callable[[], Any]:
    def get() -> Any:
        message = pipe.recv_bytes()
        try:
            return ForkingPickler.loads(message)
        except Exception as error:
            job, index, _ = _numbers(message)
            return job, index, (False, error)

    return get


def watch_pool(module: ModuleType) -> None:
    """Makes the Pools of `multiprocessing.pool` report what could not be loaded."""
    set_up = module.Pool._setup_queues

    @functools.wraps(set_up)
    def set_up_watched(self: Any) -> None:
        set_up(self)
        self._quick_put = _sending(self._inqueue._writer)
        self._quick_get = _receiving(self._outqueue._reader)

    module.Pool._setup_queues = set_up_watched


def watch_executor(module: ModuleType) -> None:
    """Makes the executors of `concurrent.futures.process` report which task could not be loaded, and why."""
    init = module._SafeQueue.__init__

    @functools.wraps(init)
    def init_watched(self: Any, *args: Any, **keywords: Any) -> None:
        init(self, *args, **keywords)
        self._send_bytes = _wrapping(self._send_bytes)

    module._SafeQueue.__init__ = init_watched
