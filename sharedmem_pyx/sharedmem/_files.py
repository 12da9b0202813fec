"""Files read straight into shared memory."""

from __future__ import annotations

import errno
import io
import os
import stat
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from sharedmem._copying import array, copy
from sharedmem._creation import empty
from sharedmem._startup import import_lock
from sharedmem.array import SharedArray
from sharedmem.errors import refuse_objects

if TYPE_CHECKING:  # importing it takes as long as half of this package
    from numpy.typing import DTypeLike

_Path = str | bytes | os.PathLike[Any]
_PIECE = 1 << 26  # bytes asked for at once: between two pieces Ctrl-C is heard
_LONGEST = 1 << 20  # bytes of a header; NumPy's own limit of 10 000 refuses what it has written itself
_DEEPEST = 200  # brackets in one another in a header, which is Python source
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # how archives begin, and empty ones
_FIRST = 1 << 16  # bytes made room for at first where a file does not know its size


def load(file: _Path | IO[bytes], mmap_mode: str | None = None) -> SharedArray:
    """Array of a ``.npy`` file, read straight into shared memory.

    Parameters
    ----------
    file : path or binary file
        A file object is read from where it is, and left behind the array. It may be a pipe.
    mmap_mode : {None, "r", "r+"}, optional
        With a mode, the file itself and not a copy of it, for reading or for writing, too: as `open_memmap`
        opens a path.

    Returns
    -------
    SharedArray
        As `numpy.load` returns it, in C or Fortran order as the file says [1]_.

    Raises
    ------
    ValueError
        It is no ``.npy`` file, or ends too soon; its header is longer than 1 MiB. Nor is an archive of arrays
        (``.npz``) one: members that `zipfile.ZipFile.open` returns are, and are read like pipes.
    TypeError
        It holds Python objects; or `file` is neither a path nor a file opened for bytes.
    OSError
        It can't be opened or read; BlockingIOError if it is not blocking and has nothing to read.
    MemoryError
        No room, as for `empty`.

    See Also
    --------
    open_memmap : also makes new files.

    References
    ----------
    .. [1] NEP 1, A Simple File Format for NumPy Arrays.
    """
    if mmap_mode is not None:
        with import_lock:
            from sharedmem._mapped import load_mode

        return load_mode(file, mmap_mode)
    if isinstance(file, (str, bytes, os.PathLike)):
        with open(file, "rb", buffering=0) as opened, naming(file):
            return load(opened)
    _check_file(file, "read")
    shape, fortran, dtype = read_header(file)
    if dtype.hasobject:
        refuse_objects(dtype)
    a = empty(shape, dtype, "F" if fortran else "C")
    done = _read_into(file, a)
    if done < a.nbytes:
        raise ValueError(f"EOF: reading array data, expected {a.nbytes} bytes got {done}")
    return a


#: What the system says of a path, with nothing to add; of other errors the sizes matter.
_OF_PATHS = {errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}


class naming:
    """Within it, errors say which file: a ValueError in its text, an OSError by its `filename`.

    Parameters
    ----------
    file : path
        As the caller of this library gave it.
    """

    def __init__(self, file: _Path) -> None:
        self.file = file

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if type(error) is ValueError:  # subclasses have other arguments
            raise ValueError(f"{os.fspath(self.file)!r}: {error}") from error.__cause__
        if isinstance(error, OSError) and error.errno is not None:
            error.filename = os.fspath(self.file)
            if error.errno in _OF_PATHS:
                error.strerror = os.strerror(error.errno)


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
        A file object is read from where it is; it has a descriptor. Pipes, sockets and devices are read,
        too, and so are files that do not know their size, such as those in ``/proc``.
    dtype : dtype_like, optional
        Of the items in the file.
    count : int, optional
        How many items, at most; -1 for all. A character device such as ``/dev/zero`` has no end and
        needs a number.
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
        It can't be opened, read or positioned; BlockingIOError if it is not blocking and has nothing to
        read. What had been read before is lost.
    TypeError
        `dtype` contains Python objects; or `file` is no path, no file opened for bytes, or has no descriptor.
    ValueError
        `count` is negative for a character device; or `offset` is, for a file without positions.
    MemoryError
        No room, as for `empty`.

    Notes
    -----
    Where a file does not know its size `numpy.fromfile` returns an empty array for ``count=-1``; here it is
    read to its end. A regular file has the size that it had at the call: what is appended meanwhile is left
    for the next call, and if it gets shorter so does the array.
    """
    dtype = np.dtype(dtype)
    if dtype.hasobject:
        refuse_objects(dtype)
    if sep != "" or dtype.itemsize == 0:
        return array(np.fromfile(file, dtype, count, sep, offset=offset))
    if isinstance(file, (str, bytes, os.PathLike)):
        with open(file, "rb", buffering=0) as opened, naming(file):
            return fromfile(opened, dtype, count, offset=offset)
    _check_file(file, "fileno")
    _skip(file, offset)
    left = _bytes_left(file)
    if left is not None:
        items = left // dtype.itemsize
        return _read_items(file, dtype, items if count < 0 else min(count, items))
    if count < 0 and stat.S_ISCHR(os.fstat(file.fileno()).st_mode):
        raise ValueError("a character device has no end: say by `count` how many items are wanted")
    return _read_to_end(file, dtype, count)


def _skip(file: IO[bytes], offset: int) -> None:
    """Skips that many bytes, by reading them where the file cannot seek."""
    if file.seekable():
        file.seek(offset, os.SEEK_CUR)
        return
    if offset < 0:
        raise ValueError("this file has no positions: the offset cannot be negative")
    while offset > 0:
        piece = _received(file.read(min(offset, _PIECE)))
        if not piece:
            return
        offset -= len(piece)


def _bytes_left(file: IO[bytes]) -> int | None:
    """Bytes from where the file is to its end; None if it does not know.

    Pipes and sockets have no positions. Devices without an end, files in /proc and some of FUSE say that
    they are empty, so that a size of 0 means nothing.
    """
    if not file.seekable():
        return None
    here = file.tell()
    try:
        end = file.seek(0, os.SEEK_END)
    except OSError:  # some files in /proc have positions but no end
        return None
    file.seek(here)
    return max(end - here, 0) if end > 0 else None


def _read_items(file: IO[bytes], dtype: np.dtype[Any], items: int) -> SharedArray:
    """Array of `items` items, or of fewer where the file ends before."""
    a = empty(items, dtype)
    done = _read_into(file, a)
    return a if done == a.nbytes else copy(a[: done // dtype.itemsize])


def _read_to_end(file: IO[bytes], dtype: np.dtype[Any], count: int) -> SharedArray:
    """Array of all items, or of the first `count` of them if that is not negative.

    Room is made as the items come: there may be far fewer than `count`.
    """
    items = max(_FIRST // dtype.itemsize, 1)
    a = empty(items if count < 0 else min(count, items), dtype)
    done = _read_into(file, a)
    while done == a.nbytes and len(a) != count:
        items = 2 * len(a)
        larger = empty(items if count < 0 else min(count, items), dtype)
        larger[: len(a)] = a
        done += _read_into(file, larger, done)
        a = larger
    return a if done == a.nbytes else copy(a[: done // dtype.itemsize])


def _check_file(file: Any, method: str) -> None:
    """Refuses what is no open file, and text files: their position is not a byte offset."""
    if not hasattr(file, method) or isinstance(file, io.TextIOBase):
        raise TypeError(f"a path or a file opened for bytes is needed, not {type(file).__name__}")
    if method == "fileno":
        try:
            file.fileno()
        except io.UnsupportedOperation:
            raise TypeError(
                f"a {type(file).__name__} has no descriptor: sharedmem.array(np.frombuffer(...)) copies bytes"
            ) from None


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, dtype; the file is then where the data starts."""
    start = _read_exactly(file, np.lib.format.MAGIC_LEN)
    if start.startswith(_ZIP):
        raise ValueError(
            "this is an archive of arrays (.npz), not one array: sharedmem.load reads what "
            "zipfile.ZipFile(path).open('NAME.npy') returns; what is in an archive cannot be mapped"
        )
    version = np.lib.format.read_magic(io.BytesIO(start))
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"this is version {version} of the .npy format, which is not known")
    length = _read_exactly(file, 2 if version == (1, 0) else 4)
    size = int.from_bytes(length, "little")
    _check_length(size)
    header = _read_exactly(file, size)
    if version == (3, 0):
        # Version 2 in UTF-8, for which NumPy has no public reader. Names stand within literals.
        header = header.decode("utf-8").encode("ascii", "backslashreplace")
        length = len(header).to_bytes(4, "little")
    check_header(header)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = read(io.BytesIO(length + header), max_header_size=len(header))
    except TypeError as error:  # of keys that cannot be compared, or hashed
        raise ValueError(f"the header makes no sense: {error}") from None
    if any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"the header makes no sense: its shape is {shape}")
    return shape, fortran, dtype


def check_header(header: bytes) -> None:
    """Refuses headers that are too long, or that Python's parser may not get through."""
    _check_length(len(header))
    depth = 0
    for byte in header:
        if byte in b"([{":
            depth += 1
            if depth > _DEEPEST:
                raise ValueError(f"the header has more than {_DEEPEST} brackets in one another")
        elif byte in b")]}":
            depth -= 1


def _check_length(size: int) -> None:
    if size > _LONGEST:
        raise ValueError(f"the header has {size} bytes, more than the {_LONGEST} that are read")


def _read_exactly(file: IO[bytes], size: int) -> bytes:
    """So many bytes, also from a pipe, which gives what there is."""
    data = b""
    while len(data) < size:
        piece = _received(file.read(size - len(data)))
        if not piece:
            raise ValueError(f"EOF: reading the header, expected {size} bytes got {len(data)}")
        data += piece
    return data


def _read_into(file: IO[bytes], a: np.ndarray[Any, Any], done: int = 0) -> int:
    """Reads the elements of a contiguous array as they lie in memory, its first `done` bytes left out.

    Returns how many bytes were read: fewer than there is room for at the end of the file.
    """
    if a.nbytes == 0:
        return 0
    target = np.asarray(a).reshape(-1, order="A").view(np.uint8).data[done:]
    done = 0
    while done < len(target):
        piece = target[done : done + _PIECE]
        if hasattr(file, "readinto"):
            got = _received(file.readinto(piece))
        else:
            data = _received(file.read(len(piece)))
            got = len(data)
            piece[:got] = data
        if got == 0:
            break
        done += got
    return done


def _received(result: Any) -> Any:
    """What a call to read has returned, which is None where nothing has come yet, as opposed to the end."""
    if result is None:
        raise BlockingIOError(errno.EAGAIN, "the file is not blocking and has nothing to read yet")
    return result
