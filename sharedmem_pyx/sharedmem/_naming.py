"""Types that the functions of names return and raise."""

from __future__ import annotations

import ast
import contextlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True)
class NameInfo:
    """What `names` reports on one name.

    Parameters
    ----------
    name : str
        The name.
    state : {"ready", "building", "failed"}
        "ready": the name refers to an object. "building": a process is creating its array. "failed": a
        process tried to, and no process has asked for the name since.
    shape : tuple of int or None
        Of the array; None unless "ready".
    dtype : numpy.dtype or None
        Of the array; None unless "ready".
    nbytes : int
        Of the array; 0 unless "ready".
    pid : int
        The process that creates the array, or created it, by its number in its own pid namespace.
    seconds : float
        Time since the state was entered; 0.0 where the clocks cannot be compared.
    processes : tuple of int
        Processes that have the array, by their numbers.
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
        """What the name refers to: "array", or a class such as "RLock"; None unless "ready"."""
        return None if self.dtype is None else kind_of(self.dtype)


class BuildError(RuntimeError):
    """Another process, or thread, has failed to build the array that this one waited for.

    Parameters
    ----------
    message : str
        What failed and why: the text of the exception.
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


# The memory of a named lock, event, condition or Latest is distinguished from an array by its dtype: it has
# one field, whose name is that of the class.
_CLASS = "sharedmem."


def dtype_of_kind(kind: str, nbytes: int) -> np.dtype[Any]:
    """The dtype of the memory of a named object of class `kind` of this package."""
    return np.dtype([(_CLASS + kind, f"V{nbytes}")])


def kind_of(dtype: np.dtype[Any]) -> str:
    """The type of object to which a name with such a dtype refers: "array", or a class of this package."""
    names = dtype.names or ("",)
    return names[0][len(_CLASS) :] if len(names) == 1 and names[0].startswith(_CLASS) else "array"


def describe_dtype(dtype: np.dtype[Any]) -> bytes:
    """The description of a dtype in the header of a .npy file, after checking that it is complete."""
    descr: Any = None
    if dtype.metadata is None and all(dtype[name].metadata is None for name in dtype.names or ()):
        with contextlib.suppress(ValueError):  # of fields that overlap, or do not follow one another
            descr = np.lib.format.dtype_to_descr(dtype)
    if descr is None or np.lib.format.descr_to_dtype(descr) != dtype:
        raise TypeError(
            f"the dtype {dtype} cannot be described to processes that look up a name: "
            "the format of .npy files has no description of it either"
        )
    return repr(descr).encode()


def parse_dtype(text: bytes) -> np.dtype[Any]:
    """The dtype that `describe_dtype` described."""
    try:
        dtype: np.dtype[Any] = np.lib.format.descr_to_dtype(ast.literal_eval(text.decode()))
    except (SyntaxError, TypeError, ValueError, MemoryError, RecursionError) as error:
        raise ValueError(f"the description of a named array is invalid: {error}") from None
    return dtype


def failure_text(error: BaseException, most: int) -> bytes:
    """The last line of an exception's traceback, truncated to that many bytes of UTF-8."""
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
