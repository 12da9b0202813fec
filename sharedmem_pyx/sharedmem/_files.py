"""Reading files straight into shared memory."""

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
_PIECE = 1 << 26  # bytes read at once: between two pieces Ctrl-C is handled
_LONGEST = 1 << 20  # bytes of a header; NumPy's own limit of 10 000 rejects files that NumPy has written
_DEEPEST = 200  # nested brackets in a header, which is Python source
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # how archives begin, and empty ones
_FIRST = 1 << 16  # bytes allocated first if a file does not know its size


def load(file: _Path | IO[bytes], mmap_mode: str | None = None) -> SharedArray:
    """Read the array of a ``.npy`` file straight into shared memory.

    Parameters
    ----------
    file : path or binary file
        A file object is read from its position, and left behind the array. It may be a pipe.
    mmap_mode : {None, "r", "r+"}, optional
        With a mode, the array is the file itself, not a copy of it, for reading or also for writing: as
        `open_memmap` opens a path.

    Returns
    -------
    SharedArray
        As `numpy.load` returns it, in C or Fortran order as the file specifies [1]_.

    Raises
    ------
    ValueError
        It is not a ``.npy`` file, or is too short; its header is longer than 1 MiB. An archive of arrays
        (``.npz``) is not one either, but its members, from `zipfile.ZipFile.open`, are; they are read like
        pipes.
    TypeError
        It contains Python objects; or `file` is neither a path nor a file opened in binary mode.
    OSError
        It can't be opened or read; BlockingIOError if it is not blocking and has nothing to read.
    MemoryError
        Not enough memory, as for `empty`.

    See Also
    --------
    open_memmap : Also creates new files.

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


#: System errors about a path, to which nothing is added; to others the sizes are added.
_OF_PATHS = {errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}


class naming:
    """Within it, errors name the file: a ValueError in its text, an OSError by its `filename`.

    Parameters
    ----------
    file : path
        As the caller of this library passed it.
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
            # That Windows does not replace a mapped file is not to be taken for a lack of permissions.
            if error.errno in _OF_PATHS and "MoveFileEx" not in (error.strerror or ""):
                error.strerror = os.strerror(error.errno)


def fromfile(
    file: _Path | IO[Any],
    dtype: DTypeLike = float,
    count: int = -1,
    sep: str = "",
    offset: int = 0,
) -> SharedArray:
    """Read an array from the raw bytes of a file straight into shared memory.

    Parameters
    ----------
    file : path or file
        A file object is read from its position; it needs a descriptor. Pipes, sockets and devices are read,
        too, and so are files that do not know their size, such as those in ``/proc``.
    dtype : dtype_like, optional
        Of the items in the file.
    count : int, optional
        The most items to read; -1 for all. A character device such as ``/dev/zero`` has no end and
        needs a number.
    sep : str, optional
        Separator of items in a text file; empty for a binary one. NumPy parses text in
        private memory, and the result is then copied.
    offset : int, optional
        Bytes to skip, from the position of the file; for binary files.

    Returns
    -------
    SharedArray
        As `numpy.fromfile` returns it; shorter than `count` if the file is.

    Raises
    ------
    OSError
        It can't be opened, read or positioned; BlockingIOError if it is not blocking and has nothing to
        read. Data that had been read before is lost.
    TypeError
        `dtype` contains Python objects; or `file` is neither a path nor a file opened in binary mode, or has
        no descriptor.
    ValueError
        `count` is negative for a character device; or `offset` is, for a file without positions.
    MemoryError
        Not enough memory, as for `empty`.

    Notes
    -----
    If a file does not know its size, `numpy.fromfile` returns an empty array for ``count=-1``; here it is
    read to its end. A regular file is read up to the size that it had at the call: data that is appended
    meanwhile is left for the next call, and if the file becomes shorter so does the array.
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
    if count < 0 and _is_character_device(file):
        raise ValueError("a character device has no end: pass `count`, the number of items to read")
    return _read_to_end(file, dtype, count)


def _is_character_device(file: IO[bytes]) -> bool:
    try:
        return stat.S_ISCHR(os.fstat(file.fileno()).st_mode)
    except OSError:  # a socket of Windows: what its file calls a descriptor is none
        return False


def _skip(file: IO[bytes], offset: int) -> None:
    """Skip that many bytes; read them if the file cannot seek."""
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
    """Bytes from the position of the file to its end; None if it does not know.

    Pipes and sockets have no positions. Devices without an end, files in /proc and some files of FUSE claim
    to be empty, so a size of 0 means that the size is unknown.
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
    """Array of `items` items, or of fewer if the file ends before."""
    a = empty(items, dtype)
    done = _read_into(file, a)
    return a if done == a.nbytes else copy(a[: done // dtype.itemsize])


def _read_to_end(file: IO[bytes], dtype: np.dtype[Any], count: int) -> SharedArray:
    """Array of all items, or of the first `count` of them if that is not negative.

    Memory is allocated as the items arrive, since there may be far fewer than `count`.
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
    """Reject objects that are not open files, and text files: their position is not a byte offset."""
    if not hasattr(file, method) or isinstance(file, io.TextIOBase):
        raise TypeError(f"a path or a file opened in binary mode is needed, not {type(file).__name__}")
    if method == "fileno":
        try:
            file.fileno()
        except io.UnsupportedOperation:
            raise TypeError(
                f"a {type(file).__name__} has no descriptor: sharedmem.array(np.frombuffer(...)) copies bytes"
            ) from None


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and dtype; the file is then positioned where the data starts."""
    start = _read_exactly(file, np.lib.format.MAGIC_LEN)
    if start.startswith(_ZIP):
        raise ValueError(
            "this is an archive of arrays (.npz), not one array: sharedmem.load reads what "
            "zipfile.ZipFile(path).open('NAME.npy') returns; arrays in an archive cannot be mapped"
        )
    version = np.lib.format.read_magic(io.BytesIO(start))
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"version {version} of the .npy format is not supported")
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
        raise ValueError(f"the header is invalid: {error}") from None
    if any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"the header is invalid: its shape is {shape}")
    return shape, fortran, dtype


def check_header(header: bytes) -> None:
    """Reject headers that are too long, or nested so deeply that Python's parser may fail."""
    _check_length(len(header))
    depth = 0
    for byte in header:
        if byte in b"([{":
            depth += 1
            if depth > _DEEPEST:
                raise ValueError(f"the header has more than {_DEEPEST} nested brackets")
        elif byte in b")]}":
            depth -= 1


def _check_length(size: int) -> None:
    if size > _LONGEST:
        raise ValueError(f"the header has {size} bytes, more than the {_LONGEST} that are allowed")


def _read_exactly(file: IO[bytes], size: int) -> bytes:
    """Read that many bytes, also from a pipe, which returns only what is there."""
    data = b""
    while len(data) < size:
        piece = _received(file.read(size - len(data)))
        if not piece:
            raise ValueError(f"EOF: reading the header, expected {size} bytes got {len(data)}")
        data += piece
    return data


def _read_into(file: IO[bytes], a: np.ndarray[Any, Any], done: int = 0) -> int:
    """Read the elements of a contiguous array as they lie in memory, from byte `done` on.

    Returns how many bytes were read: fewer than requested at the end of the file.
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
    """The result of a call to read; None means that nothing has arrived yet, as opposed to the end."""
    if result is None:
        raise BlockingIOError(errno.EAGAIN, "the file is not blocking and has nothing to read yet")
    return result
