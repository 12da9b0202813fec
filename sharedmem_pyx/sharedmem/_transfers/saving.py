"""Functions that write the data of shared arrays instead of handles: those that write files or feed engines.

A handle in a file is of no use once the array is freed, nor is one in a message that Dask, Ray or MPI stores,
forwards to another machine or reads twice. So the functions in the tables below pickle by value. Their
modules are not imported here: each is changed when it is imported.

Where there is no function to replace, handles are still written: by the program's own `pickle.Pickler`, and
when it writes the bytes of `pickle.dumps`. Loading those later raises a StaleHandleError with this reason.
"""

import functools
import io
import os
import stat
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from sharedmem._messages import by_value
from sharedmem._startup import when_imported

_Function = Callable[..., Any]


def always_by_value(save: _Function) -> _Function:
    """A version of `save` within which everything is pickled by value."""

    @functools.wraps(save)
    def save_by_value(*args: Any, **kwargs: Any) -> Any:
        before = by_value.get()
        try:
            by_value.set(True)  # in here, since a handler of a signal (Ctrl-C) may raise as soon as it is set
            return save(*args, **kwargs)
        finally:
            by_value.set(before)

    return save_by_value


def _carries_messages(file: Any) -> bool:
    """Whether what is written goes to another process or back to the caller: a pipe, a socket, a BytesIO.

    Only files of Python's own classes are examined by their descriptor, because `fileno` of other classes may
    have an effect: that of a `SpooledTemporaryFile`, for instance, moves the file to the disk.
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


def _to_disk(dump: _Function) -> _Function:
    """A version of ``dump(obj, file, ...)`` that pickles by value unless the file carries messages."""
    dump_by_value = always_by_value(dump)

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
    ("joblib.numpy_pickle", "dump", always_by_value),  # joblib.Memory calls it
    ("numpy.lib.format", "write_array", always_by_value),  # np.save and np.savez call it
    ("pandas.io.pickle", "to_pickle", always_by_value),  # the methods of frames and series call it
    ("shelve", "Shelf.__setitem__", always_by_value),
    ("torch.serialization", "save", always_by_value),
    ("distributed.protocol.pickle", "dumps", always_by_value),  # of Dask
    ("ray.cloudpickle.cloudpickle", "dumps", always_by_value),
    ("ray.cloudpickle.cloudpickle", "dump", _to_disk),
    ("mpi4py.util.pkl5", "_pickle_dumps", always_by_value),
)

# Modules in which more than a function is replaced, and what in sharedmem._transfers.engines does it.
_ENGINES = (
    ("dask.multiprocessing", "change_dask_multiprocessing"),
    ("mpi4py.MPI", "change_mpi"),
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
    # Modules of a package that was imported before this one have the function under names of their own.
    package, _, inner = module.__name__.partition(".")
    others = [each for each in list(sys.modules) if each.startswith(package + ".")] if inner else []
    for each in [package, *others]:
        other = sys.modules.get(each)
        if getattr(other, "__dict__", {}).get(name) is function:
            setattr(other, name, replaced)


def _change(action: str, module: ModuleType) -> None:
    from sharedmem._transfers import engines

    getattr(engines, action)(module)


def install() -> None:
    """Make the functions of the tables write data."""
    for module, path, version in _SAVERS:
        when_imported(module, functools.partial(_replace, path, version))
    for module, action in _ENGINES:
        when_imported(module, functools.partial(_change, action))
