"""Which functions write files, and so write the data of shared arrays instead of handles.

A handle in a file is of no use once the array has gone. So the functions in the table below pickle by
value. The modules of the table are not imported here: each is dealt with as soon as somebody imports it.

What has no function to replace still writes handles: a `pickle.Pickler` of one's own, and the bytes of
`pickle.dumps` that are then written. Loading those later is a StaleHandleError that says so.
"""

from __future__ import annotations

import functools
import io
import os
import stat
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from sharedmem._messages import by_value
from sharedmem._startup.importing import when_imported

_Function = Callable[..., Any]


def _carries_messages(file: Any) -> bool:
    """Whether what is written goes to another process or back to the caller: a pipe, a socket, a BytesIO.

    Only Python's own classes are asked for a descriptor: others may do something to have one. A
    `SpooledTemporaryFile`, for instance, moves to the disk.
    """
    if isinstance(file, io.BytesIO):
        return True
    if not isinstance(file, (io.RawIOBase, io.BufferedIOBase)):
        return False
    try:
        mode = os.fstat(file.fileno()).st_mode
    except (OSError, ValueError):  # it has none, or is closed
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _always(save: _Function) -> _Function:
    """A version of a function that pickles by value."""

    @functools.wraps(save)
    def save_by_value(*args: Any, **kwargs: Any) -> Any:
        token = by_value.set(True)
        try:
            return save(*args, **kwargs)
        finally:
            by_value.reset(token)

    return save_by_value


def _to_disk(dump: _Function) -> _Function:
    """A version of ``dump(obj, file, ...)`` that pickles by value unless the file carries messages."""
    dump_by_value = _always(dump)

    @functools.wraps(dump)
    def dump_to_disk(obj: Any, file: Any, *args: Any, **kwargs: Any) -> Any:
        chosen = dump if _carries_messages(file) else dump_by_value
        return chosen(obj, file, *args, **kwargs)

    return dump_to_disk


# Module, function or method in it, which version replaces it.
_SAVERS = (
    ("pickle", "dump", _to_disk),  # np.ndarray.dump and others call it
    ("cloudpickle.cloudpickle", "dump", _to_disk),
    ("dill._dill", "dump", _to_disk),
    ("joblib.numpy_pickle", "dump", _always),  # joblib.Memory calls it
    ("numpy.lib.format", "write_array", _always),  # np.save and np.savez call it
    ("pandas.io.pickle", "to_pickle", _always),  # the methods of frames and series call it
    ("shelve", "Shelf.__setitem__", _always),
    ("torch.serialization", "save", _always),
)


def _replace(path: str, version: Callable[[_Function], _Function], module: ModuleType) -> None:
    """Replaces a function; does nothing where this version of the library has none of that name."""
    *owners, name = path.split(".")
    owner: Any = module
    for part in owners:
        owner = getattr(owner, part, None)
    function = getattr(owner, name, None)
    if function is None:
        return
    replaced = version(function)
    replaced.__module__ = module.__name__  # where pickle finds it: `pickle.dump` says "_pickle"
    setattr(owner, name, replaced)
    # A package that was imported before this one has the function under a second name.
    package = sys.modules[module.__name__.partition(".")[0]]
    if vars(package).get(name) is function:
        setattr(package, name, replaced)


def install() -> None:
    """Make the functions of the table write data."""
    for module, path, version in _SAVERS:
        when_imported(module, functools.partial(_replace, path, version))
