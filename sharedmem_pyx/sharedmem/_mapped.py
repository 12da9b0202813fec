"""Arrays in files that processes share: opened, made, flushed."""

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

#: What `numpy.memmap` calls the modes, too.
_LONG_NAMES = {"readonly": "r", "readwrite": "r+", "write": "w+", "copyonwrite": "c"}


# -- opening and making


def open_memmap(
    filename: _Path,
    mode: str = "r",
    dtype: DTypeLike | None = None,
    shape: _Shape | None = None,
    fortran_order: bool = False,
) -> SharedArray:
    """Array of a ``.npy`` file: the file itself, not a copy of it.

    Parameters
    ----------
    filename : path
        A regular file.
    mode : {"r", "r+", "w+"}, optional
        "r": for reading; the kernel refuses stores. "r+": stores reach the file. "w+": a new file, of zeros,
        which takes the place of what was there when it is complete.
    dtype, shape : dtype_like and int or tuple of int, optional
        Of a new file; the file says it else.
    fortran_order : bool, optional
        Whether the first axis of a new file's array is contiguous.

    Returns
    -------
    SharedArray
        In the file. Its pickle is a handle: whoever loads it opens the file in the same mode.

    Raises
    ------
    OSError
        It can't be opened: FileNotFoundError, PermissionError, IsADirectoryError; or there is no address
        space for it. For "w+" also ENOSPC, since the new file's blocks are reserved: what was there before
        stays then.
    ValueError
        It is no ``.npy`` file, ends too soon, or is no regular file; its header is longer than 1 MiB; the
        mode is another one; "w+" without a shape.
    TypeError
        Its items are Python objects; or `filename` is no path.

    See Also
    --------
    memmap : the same without a header.
    load : with ``mmap_mode``, the same as for an existing file here.
    flush : waits until the disk has it.

    Notes
    -----
    As `numpy.lib.format.open_memmap`, which has "r+" as the default mode. What is written is in the file at
    once for every process, and stays there whatever becomes of this one; `flush` is needed against a crash of
    the machine only. A file that another program cuts short afterwards makes a read behind its end a SIGBUS,
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
    """What ``load(file, mmap_mode=...)`` returns."""
    return open_memmap(file, _read_mode(mmap_mode, ("r", "r+")))


def memmap(
    filename: _Path,
    dtype: DTypeLike = np.uint8,
    mode: str = "r",
    offset: int = 0,
    shape: _Shape | None = None,
    order: str = "C",
) -> SharedArray:
    """Array of the bare bytes in a file: the file itself, not a copy of it.

    Parameters
    ----------
    filename : path
        A regular file.
    dtype : dtype_like, optional
        Of the items in the file.
    mode : {"r", "r+", "w+"}, optional
        As for `open_memmap`.
    offset : int, optional
        Bytes of the file in front of the array; need not be a multiple of anything.
    shape : int or tuple of int, optional
        By default one axis with all items there are. Needed for "w+".
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
        The file is shorter than the array, or the bytes are no whole number of items; the mode, the order or
        the offset make no sense; "w+" without a shape; the file is no regular one.

    Notes
    -----
    As `numpy.memmap`, which has "r+" as the default mode. That makes a file longer if it is too short for
    `shape`; here `os.truncate` does, before it is opened. A sparse file is made by `os.truncate` and "r+".
    """
    mode = _read_mode(mode, ("r", "r+", "w+"))
    if order not in ("C", "F"):
        raise ValueError(f"order must be 'C' or 'F', not {order!r}")
    offset = operator.index(offset)
    if offset < 0:
        raise ValueError(f"the offset must not be negative: {offset}")
    if offset > np.iinfo(np.intp).max:
        raise ValueError(f"no file has {offset} bytes in front of an array")
    path = _real_path(filename)
    descr = _plain_dtype(dtype)
    if descr.itemsize == 0:
        raise ValueError(f"items of dtype {descr} have no bytes, and cannot be in a file")
    if mode == "w+":
        lengths, descr = _new_layout(shape, descr)
        with naming(filename):
            memory = create_file(path, offset + _bytes_of(lengths, descr), b"")
        return _array_in(memory, lengths, descr, offset, order == "F")
    with naming(filename):
        memory = open_file(path, mode == "r+")
    left = len(memory) - offset
    if shape is None:
        if left < 0 or left % descr.itemsize:
            raise ValueError(
                f"the {max(left, 0)} bytes behind the offset are no whole number of items "
                f"of {descr.itemsize} bytes"
            )
        lengths = (left // descr.itemsize,)
    else:
        lengths = _lengths(shape)
    expected = _bytes_of(lengths, descr)
    if expected > max(left, 0):
        raise ValueError(
            f"the file has {max(left, 0)} bytes behind the offset, and the array {expected}: "
            "os.truncate makes a file longer"
        )
    return _array_in(memory, lengths, descr, offset, order == "F")


def flush(a: np.ndarray[Any, Any]) -> None:
    """Wait until what was written to an array in a file is on the disk.

    Parameters
    ----------
    a : numpy.ndarray
        An array of `open_memmap`, `memmap` or `load`, or any view of one: its pages are written. Those of an
        array without elements are none.

    Raises
    ------
    OSError
        It cannot be written: EIO, ENOSPC.
    ValueError
        The array is in no file.
    TypeError
        `a` is no array.

    Notes
    -----
    msync(2) with MS_SYNC. Other processes see what was written without it, and it stays when this process is
    killed.
    """
    if not isinstance(a, np.ndarray):
        raise TypeError(f"flush needs an array, not {type(a).__name__}")
    if a.nbytes == 0:
        return
    place = find_place(a)
    if place is None:
        raise ValueError("the array is in no file that sharedmem has opened")
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
    """The array over bytes of a file; `layout` is what `numpy.ndarray` takes beside its buffer."""
    make: Any = np.ndarray.__new__
    shape, dtype, *rest = layout
    made: SharedArray = make(SharedArray, shape, dtype, memory, *rest)
    return made


# -- arguments and errors


def _read_mode(mode: Any, allowed: tuple[str, ...]) -> str:
    short = _LONG_NAMES.get(mode, mode) if isinstance(mode, str) else mode
    if short == "c":
        raise ValueError(
            "mode 'c' is not offered, since what is copied on write is not shared: numpy.load has it; "
            "sharedmem.load and fromfile read a file into shared memory"
        )
    if short not in allowed:
        raise ValueError(f"mode must be one of {', '.join(map(repr, allowed))}, not {mode!r}")
    return str(short)


def _real_path(filename: _Path) -> bytes:
    """The path by which others find the file, whatever their working directory is."""
    if not isinstance(filename, (str, bytes, os.PathLike)):
        raise TypeError(f"a path is needed, by which others open the file, not {type(filename).__name__}")
    if not os.fspath(filename):  # `realpath` would make the working directory of it
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
    """Shape and dtype of a new file's array, as NumPy has them; refused before anything is made of them.

    A dtype that is an array of others is no dtype of an array, and a header cannot tell it.
    """
    lengths = _lengths(shape)
    _bytes_of(lengths, dtype)  # says the shape, where NumPy on 32 bits says only that there is a limit
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
    """What `sharedmem.readonly` returns for an array in a file; None if it is in none.

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
        The file, which is opened anew for reading, is not there any more as it was.
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
