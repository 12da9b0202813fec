"""Mapped files as objects with a buffer: the memory of arrays in files."""

cimport cython
cimport numpy as cnp
from cpython.buffer cimport PyBuffer_FillInfo, Py_buffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint64_t
from libcpp.string cimport string

from sharedmem.libsharedmem.file_view cimport file_identity, file_mode, file_view
from sharedmem.libsharedmem.handle cimport byte, bytes_in


cnp.import_array()


cdef string text_of(bytes path) except *:
    if b"\0" in path:
        raise ValueError("embedded null byte")
    return string(<const char*>path, <size_t>len(path))


@cython.final
@cython.freelist(64)
cdef class FileMemory:
    """One reference to a mapped file; the base of the arrays in it.

    Attributes
    ----------
    path : bytes
        By which the file was opened first in this process.
    identity : tuple of int
        Device, inode, time of birth in nanoseconds since 1970 (0: the file system does not tell).
    writable : bool
        Whether it was opened for writing.
    """
    def __init__(self):
        raise TypeError("FileMemory cannot be created directly: use open_memmap or memmap")

    def __dealloc__(self):
        with nogil:     # the last reference unmaps the file
            self.view = file_view()

    cdef int check(self) except -1:
        if not <bint>self.view:     # made by `__new__` alone
            raise ValueError("this object does not refer to a file")
        return 0

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        self.check()
        PyBuffer_FillInfo(buffer, self, self.view.data(), <Py_ssize_t>self.view.bytes(),
                          self.view.mode() == file_mode.read, flags)

    def __len__(self):
        self.check()
        return <Py_ssize_t>self.view.bytes()

    @property
    def path(self):
        self.check()
        return PyBytes_FromStringAndSize(self.view.path().data(), <Py_ssize_t>self.view.path().size())

    @property
    def identity(self):
        cdef file_identity found
        self.check()
        found = self.view.identity()
        return found.device, found.inode, found.birth

    @property
    def writable(self):
        self.check()
        return self.view.mode() == file_mode.read_write

    def flush(self, uint64_t low, uint64_t high):
        """Wait until a range of the file is on the disk.

        Raises
        ------
        OSError
            EIO, ENOSPC: it cannot be written.
        ValueError
            The range is not within the file.
        """
        self.check()
        if low > high or high > self.view.bytes():
            raise ValueError("the bytes are not within the file")
        with nogil:
            self.view.flush(self.view.data() + low, high - low)


def open_file(bytes path not None, bint writable):
    """The bytes of a file.

    Parameters
    ----------
    path : bytes
        Absolute, without symbolic links, since other processes open the file by it.
    writable : bool
        Whether stores reach the file; otherwise the kernel refuses them.

    Returns
    -------
    FileMemory
        Of all its bytes.

    Raises
    ------
    ValueError
        It is a pipe, a socket or a device.
    OSError
        It cannot be opened, or there is no address space for it.
    """
    cdef FileMemory made = FileMemory.__new__(FileMemory)
    cdef string where = text_of(path)
    cdef file_mode mode = file_mode.read_write if writable else file_mode.read
    with nogil:
        made.view = file_view.open(where, mode)
    return made


cdef FileMemory open_again(bytes path, bint writable, const file_identity& identity, uint64_t nbytes):
    cdef FileMemory made = FileMemory.__new__(FileMemory)
    cdef string where = text_of(path)
    cdef file_mode mode = file_mode.read_write if writable else file_mode.read
    with nogil:
        made.view = file_view.open_again(where, mode, identity, nbytes)
    return made


def open_to_read(FileMemory memory not None, uint64_t nbytes):
    """The same file, opened for reading.

    Parameters
    ----------
    memory : FileMemory
        Of a file that was opened for writing.
    nbytes : int
        The least size that it must have.

    Returns
    -------
    FileMemory
        A mapping that cannot write.

    Raises
    ------
    StaleHandleError, ValueError, OSError
        The file no longer exists, or was changed.
    """
    return open_again(memory.path, False, memory.view.identity(), nbytes)


def create_file(bytes path not None, uint64_t nbytes, bytes head not None):
    """Create a file of that size, with reserved blocks, replacing an existing one.

    Parameters
    ----------
    path : bytes
        As for `open_file`.
    nbytes : int
        Its length.
    head : bytes
        Its first bytes; the others are zero.

    Returns
    -------
    FileMemory
        Writable.

    Raises
    ------
    OSError
        ENOSPC: the disk is full; EFBIG, EDQUOT, EACCES, ...
    """
    cdef FileMemory made = FileMemory.__new__(FileMemory)
    cdef string where = text_of(path)
    cdef bytes_in start = bytes_in(<byte*><char*>head, len(head))
    with nogil:
        made.view = file_view.create(where, nbytes, start)
    return made


cdef FileMemory place_of(cnp.ndarray a, place* found):
    cdef FileMemory made = FileMemory.__new__(FileMemory)
    cdef int64_t start, low, high, reach
    cdef int i
    made.view = file_view.at(cnp.PyArray_DATA(a))
    if not <bint>made.view or cnp.PyArray_NBYTES(a) == 0:
        return None
    start = low = <char*>cnp.PyArray_DATA(a) - <char*>made.view.data()
    high = start + cnp.PyArray_ITEMSIZE(a)
    for i in range(cnp.PyArray_NDIM(a)):
        reach = (cnp.PyArray_DIMS(a)[i] - 1) * cnp.PyArray_STRIDES(a)[i]
        if reach < 0:
            low += reach
        else:
            high += reach
    if low < 0 or <uint64_t>high > made.view.bytes():
        return None
    found.start, found.low, found.high = start, low, high
    return made


def find_place(cnp.ndarray a not None):
    """The file that an array lies in as a whole, and which bytes of it.

    Parameters
    ----------
    a : numpy.ndarray
        Any.

    Returns
    -------
    tuple or None
        A reference to the file; where the first element begins in it, the lowest byte, the one behind the
        highest. None if there is no such file, or the array has no bytes.
    """
    cdef place found
    memory = place_of(a, &found)
    return None if memory is None else (memory, found.start, found.low, found.high)
