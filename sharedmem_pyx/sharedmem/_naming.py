"""What the functions of names return and raise."""

from __future__ import annotations

import ast
import contextlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True)
class NameInfo:
    """What `names` tells of one name.

    Parameters
    ----------
    name : str
        The name.
    state : {"ready", "building", "failed"}
        Whether it stands for an array, or somebody makes one, or did so without success and nobody has
        asked again.
    shape : tuple of int or None
        Of the array; None unless "ready".
    dtype : numpy.dtype or None
        Of the array; None unless "ready".
    nbytes : int
        Of the array; 0 unless "ready".
    pid : int
        The process that makes it, or made it, by its number in its own pid namespace.
    seconds : float
        Since it is so; 0.0 where the clocks cannot be compared.
    processes : tuple of int
        Those that have the array, by their numbers.
    """

    name: str
    state: Literal["ready", "building", "failed"]
    shape: tuple[int, ...] | None
    dtype: np.dtype[Any] | None
    nbytes: int
    pid: int
    seconds: float
    processes: tuple[int, ...]

    @property
    def kind(self) -> str | None:
        """What it stands for: "array", or a class such as "RLock" whose `name` it is; None unless "ready"."""
        return None if self.dtype is None else kind_of(self.dtype)


class BuildError(RuntimeError):
    """Another process, or thread, has failed to build what this one waited for.

    Parameters
    ----------
    message : str
        What has failed, and why: the text of the exception.
    name : str
        The name.
    pid : int
        The process that built.
    """

    def __init__(self, message: str, name: str = "", pid: int = 0) -> None:
        super().__init__(message, name, pid)
        self.name = name
        self.pid = pid

    def __str__(self) -> str:
        return str(self.args[0])


for _public in (NameInfo, BuildError):
    _public.__module__ = "sharedmem"


# What lies under the name of a lock, an event, a condition or a Latest is told from an array by its dtype:
# one field, whose name is that of the class.
_CLASS = "sharedmem."


def dtype_of_kind(kind: str, nbytes: int) -> np.dtype[Any]:
    """The dtype of what lies under the name of an object of class `kind` of this package."""
    return np.dtype([(_CLASS + kind, f"V{nbytes}")])


def kind_of(dtype: np.dtype[Any]) -> str:
    """What a name stands for if it has such a dtype: "array", or a class of this package."""
    names = dtype.names or ("",)
    return names[0][len(_CLASS) :] if len(names) == 1 and names[0].startswith(_CLASS) else "array"


def describe_dtype(dtype: np.dtype[Any]) -> bytes:
    """What the header of a .npy file says of a dtype, checked: that it says all."""
    descr: Any = None
    if dtype.metadata is None and all(dtype[name].metadata is None for name in dtype.names or ()):
        with contextlib.suppress(ValueError):  # of fields that overlap, or do not follow one another
            descr = np.lib.format.dtype_to_descr(dtype)
    if descr is None or np.lib.format.descr_to_dtype(descr) != dtype:
        raise TypeError(
            f"the dtype {dtype} cannot be described to processes that look for a name: "
            "a .npy file could not say what it is either"
        )
    return repr(descr).encode()


def parse_dtype(text: bytes) -> np.dtype[Any]:
    """The dtype that `describe_dtype` has described."""
    try:
        dtype: np.dtype[Any] = np.lib.format.descr_to_dtype(ast.literal_eval(text.decode()))
    except (SyntaxError, TypeError, ValueError, MemoryError, RecursionError) as error:
        raise ValueError(f"the description of a named array makes no sense: {error}") from None
    return dtype


def failure_text(error: BaseException, most: int) -> bytes:
    """An exception as its traceback ends, cut to so many bytes of UTF-8."""
    kind = type(error)
    known = kind.__module__ in ("builtins", "__main__")
    name = kind.__qualname__ if known else f"{kind.__module__}.{kind.__qualname__}"
    try:
        said = str(error)
    except Exception:
        said = "<exception str() failed>"
    text = f"{name}: {said}" if said else name
    data = text.encode("utf-8", "replace")
    if len(data) > most:
        data = data[: most - 3].decode("utf-8", "ignore").encode() + b"..."
    return data
