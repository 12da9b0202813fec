"""The data that a pickle leaves out: placing it in one block of shared memory, and finding it there again.

The pieces that lie in private memory are copied into one new block; the others stay where they are. A table
says where each of them lies, in numbers. It travels in the message, beside the pickle, so that shared memory
contains nothing but data: no process can create an object by writing there.
"""
import numpy as np

cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint64_t
from libc.string cimport memcpy
from libcpp.vector cimport vector

from sharedmem._handles cimport extent
from sharedmem._new_array cimport anything, make, plan, plan_new, read_populate
from sharedmem._out_of_band cimport LeftOut, find_block, is_bytes
from sharedmem.libsharedmem.arena cimport allocation
from sharedmem.libsharedmem.copying cimport copy_bytes

from sharedmem.array import SharedArray


cdef extern from "Python.h":
    const Py_buffer* PyPickleBuffer_GetBuffer(object) except NULL


cdef extern from "<numpy/arrayobject.h>":
    object PyArray_NewFromDescr(PyTypeObject*, cnp.PyArray_Descr*, int, const cnp.npy_intp*,
                                const cnp.npy_intp*, void*, int, PyObject*)
    PyTypeObject PyArray_Type


cnp.import_array()

cdef enum:
    alignment = 64          # of each piece in a block, in bytes: as NumPy's arrays from `sharedmem.empty`
    large_bytes = 1 << 20   # from this size on bytes are copied without the GIL

cdef cnp.dtype uint8 = np.dtype(np.uint8)


cdef struct piece:
    uint64_t source         # index of the memory in which it lies
    uint64_t offset         # bytes from the start of that memory
    uint64_t bytes


cdef struct origin:
    char* lowest            # the bytes of a piece before it is copied
    uint64_t bytes
    bint writable
    PyObject* scattered     # borrowed: a private array neither in C's nor in Fortran's order; NULL: none


cdef struct held:
    char* data              # a block in which pieces lie already
    uint64_t bytes
    bint writable
    PyObject* owner         # borrowed: what keeps the block alive


# -- from pieces to memory

@cython.final
cdef class Gathering:
    """The pieces that were left out of one pickle: where each of them lies, and where it will lie."""
    cdef vector[piece] pieces
    cdef vector[origin] origins
    cdef vector[held] blocks    # in which pieces lie already; the sources from number 1 on
    cdef dict known             # address of a block: its number
    cdef uint64_t copied        # bytes of the block for the pieces that lie in private memory, source 0

    cdef int look(self, list buffers) except -1:
        cdef allocation found
        cdef origin o
        cdef piece p
        cdef const char* data
        self.known = {}
        for buffer in buffers:
            read_origin(buffer, &o)
            p.bytes = o.bytes
            if o.bytes > 0 and o.scattered == NULL and find_block(o.lowest, o.bytes, &found):
                data = <const char*>found.data
                if found.read_only:     # it must stay read-only, so the same mapping is used
                    data = <const char*>found.ref.home.read_only(data)
                p.source = self.enter(<char*>data, found.bytes, o.writable, buffer)
                p.offset = o.lowest - data
                o.bytes = 0     # to be copied
            else:
                p.source = 0
                p.offset = self.copied
                self.copied += (o.bytes + alignment - 1) // alignment * alignment
            self.pieces.push_back(p)
            self.origins.push_back(o)
        return 0

    cdef uint64_t enter(self, char* data, uint64_t nbytes, bint writable, object owner) except 0:
        """The number of a block, in one of its mappings, among the sources."""
        cdef held h
        cdef uint64_t number
        key = <size_t>data
        number = self.known.setdefault(key, self.blocks.size() + 1)
        if number > self.blocks.size():
            h.data = data
            h.bytes = nbytes
            h.writable = False
            h.owner = <PyObject*>owner
            self.blocks.push_back(h)
        if writable:
            self.blocks[number - 1].writable = True
        return number

    cdef object copy(self):
        """A new block with the pieces that lay in private memory; None if there are none."""
        cdef plan p
        cdef cnp.ndarray block
        cdef char* data
        cdef size_t i
        if self.copied == 0:
            return None
        plan_new(&p, self.copied, uint8, "C")
        block = make(&p, uint8, read_populate(None, p.bytes, True), anything, NULL, NULL, None)
        data = cnp.PyArray_BYTES(block)
        if self.copied < large_bytes:
            self.copy_contiguous(data)
        else:
            with nogil:
                self.copy_contiguous(data)
        for i in range(self.origins.size()):
            if self.origins[i].scattered != NULL:
                copy_scattered(block, self.pieces[i].offset, <cnp.ndarray>self.origins[i].scattered)
        return block

    cdef void copy_contiguous(self, char* data) noexcept nogil:
        cdef size_t i
        for i in range(self.origins.size()):
            if self.origins[i].bytes > 0 and self.origins[i].scattered == NULL:
                copy_bytes(data + self.pieces[i].offset, self.origins[i].lowest, self.origins[i].bytes)

    cdef list sources(self, object block):
        cdef list found = [block]
        cdef held h
        for h in self.blocks:
            found.append(bytes_over(SharedArray, h.data, h.bytes, h.writable, <object>h.owner))
        return found


cdef int read_origin(object buffer, origin* o) except -1:
    cdef const Py_buffer* view = PyPickleBuffer_GetBuffer(buffer)
    cdef LeftOut out
    o.writable = not view.readonly
    o.scattered = NULL
    if type(<object>view.obj) is not LeftOut:
        o.lowest = <char*>view.buf
        o.bytes = view.len
        return 0
    out = <LeftOut>view.obj
    o.bytes = extent(out.array, &o.lowest)
    if not (out.shared or cnp.PyArray_IS_C_CONTIGUOUS(out.array) or cnp.PyArray_IS_F_CONTIGUOUS(out.array)):
        o.scattered = <PyObject*>out.array
        o.bytes = cnp.PyArray_NBYTES(out.array)
    return 0


cdef int copy_scattered(cnp.ndarray block, uint64_t offset, cnp.ndarray a) except -1:
    cdef cnp.dtype descr = a.descr
    Py_INCREF(descr)
    target = PyArray_NewFromDescr(
        &PyArray_Type, <cnp.PyArray_Descr*>descr, cnp.PyArray_NDIM(a), cnp.PyArray_DIMS(a), NULL,
        cnp.PyArray_BYTES(block) + offset, cnp.NPY_ARRAY_CARRAY, NULL)
    cnp.PyArray_CopyInto(target, a)
    return 0


cdef object bytes_over(type cls, char* data, cnp.npy_intp nbytes, bint writable, object owner):
    """An array of bytes, of class ndarray or SharedArray, over memory that `owner` keeps."""
    cdef int flags = cnp.NPY_ARRAY_CARRAY if writable else cnp.NPY_ARRAY_CARRAY_RO
    Py_INCREF(uint8)
    made = PyArray_NewFromDescr(<PyTypeObject*>cls, <cnp.PyArray_Descr*>uint8, 1, &nbytes, NULL, data, flags,
                                NULL)
    cnp.set_array_base(made, owner)
    return made


def gather(list buffers not None):
    """Find the pieces that were left out of a pickle in shared memory, or copy them there.

    Parameters
    ----------
    buffers : list of pickle.PickleBuffer
        What the pickler's `buffer_callback` was given, in that order.

    Returns
    -------
    sources : list of SharedArray
        The memory in which the pieces lie: first a block made for those that lay in private memory, None if
        there were none, then the blocks in which others lay already.
    table : bytes
        Three numbers of 64 bits for each piece: which source, the offset in it and the length, in bytes.

    Raises
    ------
    MemoryError
        Not enough memory for the copies; see `sharedmem.empty`.
    """
    cdef Gathering all_ = Gathering.__new__(Gathering)
    all_.look(buffers)
    block = all_.copy()
    table = PyBytes_FromStringAndSize(<char*>all_.pieces.data(), all_.pieces.size() * sizeof(piece))
    return all_.sources(block), table


# -- from memory to pieces

@cython.final
cdef class Pieces:
    """Iterates over the pieces that `gather` described: the argument `buffers` of `pickle.loads`.

    Parameters
    ----------
    sources : list of SharedArray
        As `gather` returned them; each of bytes.
    table : bytes
        As `gather` returned it.

    Raises
    ------
    ValueError
        A piece does not lie within its source, or an argument is invalid.
    """
    cdef list source
    cdef bytes table
    cdef size_t next
    cdef size_t count

    def __cinit__(self, list sources not None, bytes table not None):
        if len(table) % sizeof(piece) != 0:
            raise ValueError("message: its table is truncated")
        for each in sources:
            if each is not None and not is_bytes(each):
                raise ValueError("message: its memory is not an array of bytes")
        self.source = list(sources)     # a copy, which the caller cannot change
        self.table = table
        self.count = len(table) // sizeof(piece)

    def __iter__(self):
        return self

    def __next__(self):
        cdef piece p
        cdef cnp.ndarray source
        cdef uint64_t there
        cdef size_t at = self.next      # read once: without the GIL another thread may iterate meanwhile
        if at >= self.count:
            raise StopIteration
        self.next = at + 1
        memcpy(&p, PyBytes_AS_STRING(self.table) + at * sizeof(piece), sizeof(piece))
        if p.bytes == 0:
            return np.empty(0, uint8)
        found = self.source[<Py_ssize_t>p.source] if p.source < <size_t>len(self.source) else None
        if found is None:
            raise ValueError("message: a part of its data is in none of its blocks of memory")
        source = found
        there = cnp.PyArray_SIZE(source)
        if p.offset > there or p.bytes > there - p.offset:
            raise ValueError("message: a part of its data does not lie within its memory")
        return bytes_over(np.ndarray, cnp.PyArray_BYTES(source) + p.offset, p.bytes,
                          cnp.PyArray_ISWRITEABLE(source), source)
