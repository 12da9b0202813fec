"""Arrays in files that processes share: opening, creating, flushing."""

from __future__ import annotations

import errno
import operator
import os
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import sharedmem._file_handles  # noqa: F401 -- only compiled modules use it, whose imports PyInstaller does not see
from sharedmem._copying import asshared
from sharedmem._creation import empty
from sharedmem._file_memory import FileMemory, create_file, find_place, open_file, open_to_read
from sharedmem._files import check_header, naming, read_header
from sharedmem._npy_headers import BytesReader, npy_header
from sharedmem.array import SharedArray
from sharedmem.errors import refuse_objects

if TYPE_CHECKING:  # importing it takes as long as half of this package
    from numpy.typing import DTypeLike

_Path = str | bytes | os.PathLike[Any]
_Shape = int | tuple[int, ...]

#: The names by which `numpy.memmap` also knows the modes.
_LONG_NAMES = {"readonly": "r", "readwrite": "r+", "write": "w+", "copyonwrite": "c"}


# -- opening and making


def open_memmap(
    filename: _Path,
    mode: str = "r",
    dtype: DTypeLike | None = None,
    shape: _Shape | None = None,
    fortran_order: bool = False,
) -> SharedArray:
    """Open or create the array of a ``.npy`` file: the file itself, not a copy of it.

    Parameters
    ----------
    filename : path
        A regular file.
    mode : {"r", "r+", "w+"}, optional
        "r": for reading; the kernel refuses stores. "r+": stores reach the file. "w+": a new file, of zeros,
        which replaces an existing one when it is complete.
    dtype, shape : dtype_like and int or tuple of int, optional
        For a new file; an existing one contains them.
    fortran_order : bool, optional
        For a new file: whether the first axis of its array is contiguous.

    Returns
    -------
    SharedArray
        In the file. It is pickled as a handle, whose receiver opens the file in the same mode.

    Raises
    ------
    OSError
        The file can't be opened: FileNotFoundError, PermissionError, IsADirectoryError; or there is no
        address space for it. For "w+" also ENOSPC, since the new file's blocks are reserved; an existing
        file is not changed then.
    ValueError
        It is not a ``.npy`` file, is too short, or is not a regular file; its header is longer than 1 MiB;
        the mode is another one; "w+" without a shape.
    TypeError
        Its items are Python objects; or `filename` is not a path.

    See Also
    --------
    memmap : The same without a header.
    load : With ``mmap_mode`` it opens an existing file as this function does.
    flush : Waits until the data is on the disk.

    Notes
    -----
    As `numpy.lib.format.open_memmap`, whose default mode is "r+". Data that is written is in the file at
    once for every process, and stays there whatever happens to this one; `flush` only protects against a
    crash of the machine. If another program truncates the file afterwards, a read beyond its end is a SIGBUS,
    as with any mapping. No descriptor is kept, and each file is mapped once per mode and process.

    Examples
    --------
    >>> a = sharedmem.open_memmap("table.npy", "w+", "f4", (1000, 4))  # doctest: +SKIP
    """
    mode = _read_mode(mode, ("r", "r+", "w+"))
    path = _real_path(filename)
    if mode == "w+":
        lengths, descr = _new_layout(shape, _plain_dtype(dtype))
        head = npy_header(lengths, fortran_order, descr)
        check_header(head)
        with naming(filename):
            memory = create_file(path, len(head) + _bytes_of(lengths, descr), head)
        return _array_in(memory, lengths, descr, len(head), fortran_order)
    with naming(filename):
        memory = open_file(path, mode == "r+")
    reader = BytesReader(memory)
    with naming(filename):
        lengths, fortran_order, descr = read_header(reader)  # type: ignore[arg-type]
        if descr.hasobject:
            refuse_objects(descr)
        expected = _bytes_of(lengths, descr)
        left = len(memory) - reader.at
        if expected > left:
            raise ValueError(f"EOF: reading array data, expected {expected} bytes got {left}")
    return _array_in(memory, lengths, descr, reader.at, fortran_order)


def load_mode(file: Any, mmap_mode: str) -> SharedArray:
    """The array that ``load(file, mmap_mode=...)`` returns."""
    return open_memmap(file, _read_mode(mmap_mode, ("r", "r+")))


def memmap(
    filename: _Path,
    dtype: DTypeLike = np.uint8,
    mode: str = "r",
    offset: int = 0,
    shape: _Shape | None = None,
    order: str = "C",
) -> SharedArray:
    """Open or create an array of the raw bytes of a file: the file itself, not a copy of it.

    Parameters
    ----------
    filename : path
        A regular file.
    dtype : dtype_like, optional
        Of the items in the file.
    mode : {"r", "r+", "w+"}, optional
        As for `open_memmap`.
    offset : int, optional
        Bytes of the file before the array; any number.
    shape : int or tuple of int, optional
        By default one axis with all items of the file. Required for "w+".
    order : {"C", "F"}, optional
        Whether the last or the first axis is contiguous.

    Returns
    -------
    SharedArray
        In the file, as `open_memmap` returns it.

    Raises
    ------
    OSError, TypeError
        As `open_memmap`.
    ValueError
        The file is shorter than the array, or its bytes are not a whole number of items; the mode, the order
        or the offset is invalid; "w+" without a shape; it is not a regular file.

    Notes
    -----
    As `numpy.memmap`, whose default mode is "r+". With that mode NumPy extends a file that is too short for
    `shape`; here call `os.truncate` before. To create a sparse file, use `os.truncate` and "r+".
    """
    mode = _read_mode(mode, ("r", "r+", "w+"))
    if order not in ("C", "F"):
        raise ValueError(f"order must be 'C' or 'F', not {order!r}")
    offset = operator.index(offset)
    if offset < 0:
        raise ValueError(f"the offset must not be negative: {offset}")
    if offset > np.iinfo(np.intp).max:
        raise ValueError(f"the offset of {offset} bytes is larger than any file")
    path = _real_path(filename)
    descr = _plain_dtype(dtype)
    if descr.itemsize == 0:
        raise ValueError(f"items of dtype {descr} have no bytes and cannot be in a file")
    if mode == "w+":
        lengths, descr = _new_layout(shape, descr)
        with naming(filename):
            memory = create_file(path, offset + _bytes_of(lengths, descr), b"")
        return _array_in(memory, lengths, descr, offset, order == "F")
    with naming(filename):
        memory = open_file(path, mode == "r+")
    left = len(memory) - offset
    if left < 0:
        raise ValueError(
            f"offset {offset} lies beyond the end of {os.fspath(filename)!r}, which has {len(memory)} bytes: "
            "os.truncate extends a file"
        )
    if shape is None:
        if left % descr.itemsize:
            raise ValueError(
                f"the {left} bytes after the offset are not a whole number of items of {descr.itemsize} bytes"
            )
        lengths = (left // descr.itemsize,)
    else:
        lengths = _lengths(shape)
    expected = _bytes_of(lengths, descr)
    if expected > left:
        raise ValueError(
            f"the file has {left} bytes after the offset, but the array needs {expected}: "
            "os.truncate extends a file"
        )
    return _array_in(memory, lengths, descr, offset, order == "F")


def flush(a: np.ndarray[Any, Any]) -> None:
    """Wait until the data written to an array in a file is on the disk.

    Parameters
    ----------
    a : numpy.ndarray
        An array of `open_memmap`, `memmap` or `load`, or any view of one: its pages are written. An array
        without elements has none.

    Raises
    ------
    OSError
        The data cannot be written: EIO, ENOSPC. On Windows also EACCES and ENOENT, since the file is opened
        again.
    StaleHandleError
        On Windows: another file has the name under which the file was opened.
    ValueError
        The array is not in a file.
    TypeError
        `a` is not an array.

    Notes
    -----
    msync(2) with MS_SYNC; on Windows FlushViewOfFile and FlushFileBuffers. Other processes see what was
    written without it, and the data is not lost when this process is killed.
    """
    if not isinstance(a, np.ndarray):
        raise TypeError(f"flush needs an array, not {type(a).__name__}")
    if a.nbytes == 0:
        return
    place = find_place(a)
    if place is None:
        raise ValueError("the array is not in a file that sharedmem has opened")
    memory, _, low, high = place
    memory.flush(low, high)


def _array_in(
    memory: FileMemory, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int, fortran_order: bool
) -> SharedArray:
    order: Literal["C", "F"] = "F" if fortran_order else "C"
    if _bytes_of(shape, dtype) == 0:  # there may be no mapping: an empty file cannot be mapped
        a = empty(shape, dtype, order)
        a.flags.writeable = memory.writable
        return a
    return _over(memory, shape, dtype, offset, None, order)


def _over(memory: FileMemory, *layout: Any) -> SharedArray:
    """The array over bytes of a file; `layout` has the arguments of `numpy.ndarray` besides its buffer."""
    make: Any = np.ndarray.__new__
    shape, dtype, *rest = layout
    made: SharedArray = make(SharedArray, shape, dtype, memory, *rest)
    return made


# -- arguments and errors


def _read_mode(mode: Any, allowed: tuple[str, ...]) -> str:
    short = _LONG_NAMES.get(mode, mode) if isinstance(mode, str) else mode
    if short == "c":
        raise ValueError(
            "mode 'c' is not supported, since memory that is copied on write is not shared: use numpy.load; "
            "sharedmem.load and fromfile read a file into shared memory"
        )
    if short not in allowed:
        raise ValueError(f"mode must be one of {', '.join(map(repr, allowed))}, not {mode!r}")
    return str(short)


def _real_path(filename: _Path) -> bytes:
    """The path by which other processes find the file, whatever their working directory is."""
    if not isinstance(filename, (str, bytes, os.PathLike)):
        raise TypeError(f"a path is needed, since other processes open it, not {type(filename).__name__}")
    if not os.fspath(filename):  # `realpath` would turn it into the working directory
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), filename)
    return os.fsencode(os.path.realpath(filename))


def _plain_dtype(dtype: DTypeLike | None) -> np.dtype[Any]:
    descr = np.dtype(dtype)
    if descr.hasobject:
        refuse_objects(descr)
    return descr


def _lengths(shape: _Shape | None) -> tuple[int, ...]:
    if shape is None:
        raise ValueError("a new file needs a shape")
    if isinstance(shape, (tuple, list)):
        lengths = tuple(operator.index(n) for n in shape)
    else:
        lengths = (operator.index(shape),)
    if any(n < 0 for n in lengths):
        raise ValueError(f"negative dimensions are not allowed: {lengths}")
    return lengths


def _new_layout(shape: _Shape | None, dtype: np.dtype[Any]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of a new file's array, normalized as by NumPy; rejects them before anything is created.

    A dtype that is an array of others cannot be the dtype of an array, and a header cannot describe it.
    """
    lengths = _lengths(shape)
    _bytes_of(lengths, dtype)  # its error has the shape; NumPy's on 32 bits says only that there is a limit
    layout: Any = np.ndarray
    array = layout(lengths, dtype, bytes(dtype.itemsize), 0, (0,) * len(lengths))  # without memory for it
    return array.shape, array.dtype


def _bytes_of(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    nbytes = dtype.itemsize
    for n in shape:
        nbytes *= n
    if nbytes > np.iinfo(np.intp).max:
        raise ValueError(f"array is too big: shape {shape} of {dtype}")
    return nbytes


# -- through a read-only mapping


def readonly_mapped(a: np.ndarray[Any, Any]) -> SharedArray | None:
    """The result of `sharedmem.readonly` for an array in a file; None if it is not in a file.

    Parameters
    ----------
    a : numpy.ndarray
        Any.

    Returns
    -------
    SharedArray or None
        `a` itself, or a view of it, if the file was opened for reading.

    Raises
    ------
    StaleHandleError, ValueError, OSError
        The file, which is opened again for reading, is not there any more, or was changed.
    """
    place = find_place(a)
    if place is None:
        return None
    memory, start, _, high = place
    if not memory.writable:
        itself: SharedArray = asshared(a)
        return itself
    again = open_to_read(memory, high)
    made = _over(again, a.shape, a.dtype, start, a.strides)
    if type(a) is SharedArray or not isinstance(a, SharedArray):
        return made
    wrap: Any = np.ndarray.__array_wrap__  # a subclass gets its attributes from `a`
    wrapped: SharedArray = wrap(a, made)
    return wrapped
