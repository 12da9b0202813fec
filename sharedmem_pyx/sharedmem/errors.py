"""Exceptions of this package."""

from typing import Any, NoReturn, TypeAlias

import numpy as np

_DType: TypeAlias = np.dtype[Any]


class StaleHandleError(ValueError):
    """The memory to which a pickled array refers was freed, or cannot be reached from this process.

    The pickle of a shared array contains a handle. A handle sent by :mod:`multiprocessing` keeps its memory
    alive until it is loaded; any other pickle (`pickle.dumps`, a socket) does not, and is not valid
    on another host or after a restart. Pickles that contain the data are written by `pickle.dump` into a
    file on disk and by everything within :func:`sharedmem.pickle_by_value`.
    """


StaleHandleError.__module__ = "sharedmem"


def refuse_objects(dtype: _DType) -> NoReturn:
    """Raise the TypeError for a dtype that contains Python objects; the message names the field."""
    path, inner = _find_objects(dtype)
    kind = "object" if inner.char == "O" else type(inner).__name__
    what = f"the dtype's field {path!r} is" if path else "the dtype is"
    raise TypeError(
        f"{what} {kind}: its items are pointers, which are valid in one process only. "
        "Use items of a fixed size instead: numbers, 'S' or 'U' strings, dates, or records of these"
    )


def kind_text(obj: object) -> str:
    """What an object is, for errors."""
    return "None" if obj is None else f"an object of type {type(obj).__name__}"


def refuse_unconverted(obj: object) -> NoReturn:
    """Raise the TypeError for something that is no array, and that NumPy turns into one of Python objects."""
    raise TypeError(
        f"NumPy turns {kind_text(obj)} into items that are pointers to Python objects, which are valid in "
        "one process only. Pass numbers, text or dates; sharedmem.share(obj) puts the arrays within other "
        "objects into shared memory"
    )


def _find_objects(dtype: _DType, path: str = "") -> tuple[str, _DType]:
    if dtype.subdtype is not None:
        return _find_objects(dtype.subdtype[0], path)
    for name in dtype.names or ():
        field = dtype[name]
        if field.hasobject:
            return _find_objects(field, f"{path}.{name}" if path else name)
    return path, dtype
