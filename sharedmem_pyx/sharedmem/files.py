"""Files read straight into shared memory."""

from __future__ import annotations

import io
import os
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike

from sharedmem.array import SharedArray
from sharedmem.copying import array, asshared
from sharedmem.creation import empty
from sharedmem.errors import refuse_objects

_Path = str | bytes | os.PathLike[Any]
_PIECE = 1 << 26  # bytes asked for at once: between two pieces Ctrl-C is heard


def load(file: _Path | IO[bytes]) -> SharedArray:
    """Array of a ``.npy`` file, read straight into shared memory.

    Parameters
    ----------
    file : path or binary file
        A file object is read from where it is, and left behind the array.

    Returns
    -------
    SharedArray
        As `numpy.load` returns it, in C or Fortran order as the file says [1]_.

    Raises
    ------
    ValueError
        It is no ``.npy`` file, or ends too soon.
    TypeError
        It holds Python objects; or `file` is neither a path nor a file opened for bytes.
    OSError
        It can't be opened or read.
    MemoryError
        No room, as for `empty`.

    References
    ----------
    .. [1] NEP 1, A Simple File Format for NumPy Arrays.
    """
    if isinstance(file, (str, bytes, os.PathLike)):
        with open(file, "rb", buffering=0) as opened:
            return load(opened)
    _check_file(file, "read")
    shape, fortran, dtype = _read_header(file)
    if dtype.hasobject:
        refuse_objects(dtype)
    a = empty(shape, dtype, "F" if fortran else "C")
    done = _read_into(file, a)
    if done < a.nbytes:
        raise ValueError(f"EOF: reading array data, expected {a.nbytes} bytes got {done}")
    return a


def fromfile(
    file: _Path | IO[Any],
    dtype: DTypeLike = float,
    count: int = -1,
    sep: str = "",
    offset: int = 0,
) -> SharedArray:
    """Array of the bare bytes in a file, read straight into shared memory.

    Parameters
    ----------
    file : path or file
        A file object is read from where it is; it has a descriptor.
    dtype : dtype_like, optional
        Of the items in the file.
    count : int, optional
        How many items, at most; -1 for all.
    sep : str, optional
        What separates items in a text file; empty for a binary one. Text is parsed by NumPy in
        private memory and then copied.
    offset : int, optional
        Bytes to skip, from where the file is; for binary files.

    Returns
    -------
    SharedArray
        As `numpy.fromfile` returns it; shorter than `count` if the file is.

    Raises
    ------
    OSError
        It can't be opened, read or positioned.
    TypeError
        `dtype` contains Python objects; or `file` is no path, no file opened for bytes, or has no descriptor.
    MemoryError
        No room, as for `empty`.
    """
    dtype = np.dtype(dtype)
    if dtype.hasobject:
        refuse_objects(dtype)
    if sep != "" or dtype.itemsize == 0:
        return array(np.fromfile(file, dtype, count, sep, offset=offset))
    if isinstance(file, (str, bytes, os.PathLike)):
        with open(file, "rb", buffering=0) as opened:
            return fromfile(opened, dtype, count, offset=offset)
    _check_file(file, "fileno")
    file.seek(offset, os.SEEK_CUR)
    items = max(os.fstat(file.fileno()).st_size - file.tell(), 0) // dtype.itemsize
    a = empty(items if count < 0 else min(count, items), dtype)
    done = _read_into(file, a)
    return a if done == a.nbytes else asshared(a[: done // dtype.itemsize])


def _check_file(file: Any, method: str) -> None:
    """Refuses what is no open file, and one of text, whose place is not where its bytes are read."""
    if not hasattr(file, method) or isinstance(file, io.TextIOBase):
        raise TypeError(f"a path or a file opened for bytes is needed, not {type(file).__name__}")
    if method == "fileno":
        try:
            file.fileno()
        except io.UnsupportedOperation:
            raise TypeError(
                f"a {type(file).__name__} has no descriptor: sharedmem.array(np.frombuffer(...)) copies bytes"
            ) from None


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, dtype; the file is then where the data starts."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (3, 0):
        # Version 2 in UTF-8, for which NumPy has no public reader. Names stand within literals.
        length = file.read(4)
        text = file.read(int.from_bytes(length, "little")).decode("utf-8")
        header = text.encode("ascii", "backslashreplace")
        file = io.BytesIO(len(header).to_bytes(4, "little") + header)
    elif version != (2, 0):
        raise ValueError(f"this is version {version} of the .npy format, which is not known")
    return np.lib.format.read_array_header_2_0(file)


def _read_into(file: IO[bytes], a: np.ndarray[Any, Any]) -> int:
    """Reads the elements of a contiguous array as they lie in memory; the number of bytes read."""
    if a.nbytes == 0:
        return 0
    target = np.asarray(a).reshape(-1, order="A").view(np.uint8).data
    done = 0
    while done < len(target):
        piece = target[done : done + _PIECE]
        if hasattr(file, "readinto"):
            got = file.readinto(piece) or 0
        else:
            data = file.read(len(piece))
            got = len(data)
            piece[:got] = data
        if got == 0:
            break
        done += got
    return done
