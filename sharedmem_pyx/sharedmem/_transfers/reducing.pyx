"""How the picklers of transfers reduce arrays that are not SharedArrays.

An exact ndarray whose bytes lie in a block that this process holds is pickled as a handle, and arrives as an
exact ndarray over the same memory. While `sharedmem.transport` is on, the bytes of a large private array are
copied into a separate block, and a handle of that is pickled. The receiver copies them out, so that the
array is private and writable as after pickling, or it uses the block itself if the sender asked for no
second copy. All other arrays are pickled as usual.

The lease of such a block belongs to the message, and is given back if that is not pickled completely. The
bytes in flight at one time are bounded, because a sender of handles is not slowed down by a full pipe.
"""

import numpy as np

cimport cython
cimport numpy as cnp
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport UINT64_MAX, uint64_t
from libc.string cimport memcpy

from sharedmem._handles cimport dtype_text, encode_array
from sharedmem._messages cimport current_leases, lease_in, message, reduce_for
from sharedmem._transfers.blocks cimport (
    give_back_memory, in_hand, large_bytes, readers_are_this_user, take_memory)
from sharedmem.libsharedmem.arena cimport allocation, arena, claim
from sharedmem.libsharedmem.copying cimport copy_bytes
from sharedmem.libsharedmem.file_view cimport file_view
from sharedmem.libsharedmem.home cimport arena_of, memory_total

from sharedmem._handles import _load_exact
from sharedmem._in_flight import look
from sharedmem._transfers.blocks import _copy_out
from sharedmem.array import SharedArray


cdef extern from "<atomic>" namespace "std" nogil:
    cdef cppclass atomic_number "std::atomic<std::uint64_t>":
        uint64_t load() noexcept
        void store(uint64_t) noexcept
        uint64_t fetch_add(uint64_t) noexcept


cdef extern from "<sharedmem_pyx/under_way.hpp>" namespace "sharedmem_pyx" nogil:
    cdef cppclass transport_settings:
        atomic_number min_bytes
        atomic_number zero_copy_from
        atomic_number limit

    cdef cppclass transport_counts:
        atomic_number messages
        atomic_number bytes
        atomic_number by_pipe

    transport_settings settings
    transport_counts counts

    cdef cppclass under_way:
        bint admit(uint64_t, uint64_t) noexcept
        void enter(arena*, const claim&, uint64_t) except +
        void withdraw(uint64_t) noexcept
        uint64_t bytes() noexcept

    under_way* mine


cdef extern from "<numpy/arrayobject.h>":
    PyTypeObject PyArray_Type
    object PyArray_NewFromDescr(PyTypeObject*, cnp.PyArray_Descr*, int, const cnp.npy_intp*,
                                const cnp.npy_intp*, void*, int, PyObject*)
    int PyArray_CopyInto(cnp.ndarray, cnp.ndarray) except -1
    void PyArray_CLEARFLAGS(cnp.ndarray, int)
    bint PyDataType_REFCHK(cnp.dtype)
    bint PyDataType_HASFIELDS(cnp.dtype)
    bint PyArray_ISNBO(char)


cdef enum:
    least_carried = 1024        # bytes of an array below which its handle costs as much as its bytes
    zero_copy_least = 1 << 20   # bytes of an array from which on `copy=False` avoids the second copy
    first_unknown_type = 24     # NumPy's type numbers from here on are not built in
    share_of_memory = 16        # without a limit this part of the memory may be in flight


cnp.import_array()

cdef object plain_reduce = np.ndarray.__reduce__

# Type numbers that pickling changes: long long becomes long where both have 64 bits.
cdef set changed_by_pickle = {
    np.dtype(char).num for char in np.typecodes["All"]
    if char not in "OSUVMm" and np.dtype(np.dtype(char).str).num != np.dtype(char).num}


# -- which arrays, and what of them

@cython.final
@cython.freelist(8)
cdef class Reducer:
    """Reduces arrays for one pickler: an entry of its dispatch table.

    Not thread-safe: a pickler is used by one thread.
    """

    def __call__(self, array, /):
        """What a dispatch table returns for an exact ndarray, or a SharedArray."""
        cdef cnp.ndarray a = array
        reduced = reduce_exact(self, a, current_leases(), True)
        if reduced is not None:
            return reduced
        if self.protocol < 5 and cnp.PyArray_CheckExact(a):
            return plain_reduce(a)      # what __reduce_ex__ calls, after looking it up
        return a.__reduce_ex__(self.protocol)

    def in_place_of_bytes(self, array, /):
        """What to pickle instead of an exact ndarray's bytes.

        Returns
        -------
        tuple or None
            A function and its arguments; None: the bytes themselves are to be pickled.
        """
        return reduce_exact(self, array, current_leases(), True)


cdef Reducer new_reducer(int protocol):
    cdef Reducer made = Reducer.__new__(Reducer)
    made.protocol = protocol
    made.min_bytes = settings.min_bytes.load()
    if made.min_bytes != 0:
        made.zero_copy_from = settings.zero_copy_from.load()
        made.limit = settings.limit.load()
    return made


def reducer_by_settings(int protocol):
    """A reducer with the settings of `sharedmem.transport`, for one message."""
    return new_reducer(protocol)


def reduce_shared(a, /):
    """How to pickle an exact ndarray in shared memory, whatever entry its pickler has for ndarrays."""
    return reduce_for(a, 4, current_leases(), True)


def reduce_kept(a, /):
    """As `reduce_shared`, without a lease: the sender keeps the block itself until the message is loaded.

    Returns
    -------
    tuple
        A function and its arguments, and a state within `sharedmem.pickle_by_value`.
    """
    return reduce_for(a, 4, NULL, False)


def reducer(int protocol, *, uint64_t min_bytes=1, uint64_t zero_copy_from=0, uint64_t limit=UINT64_MAX):
    """A reducer with settings of its own.

    Parameters
    ----------
    protocol : int
        The pickler's.
    min_bytes : int, optional
        Data of a message, in bytes, from which on the arrays that follow go through the arena.
    zero_copy_from : int, optional
        Arrays of at least that many bytes arrive as arrays over the block; smaller ones are copied out.
    limit : int, optional
        Most bytes in flight; beyond that arrays are pickled with their bytes.

    Returns
    -------
    Reducer
        For one message.
    """
    cdef Reducer made = Reducer.__new__(Reducer)
    made.protocol = protocol
    made.min_bytes = min_bytes
    made.zero_copy_from = zero_copy_from
    made.limit = limit
    return made


cdef object reduce_exact(Reducer self, cnp.ndarray a, message* leases, bint among_others):
    cdef uint64_t nbytes = cnp.PyArray_NBYTES(a)
    if nbytes == 0 or PyDataType_REFCHK(a.descr):
        return None
    cdef arena* where = arena_of(cnp.PyArray_DATA(a))
    if where != NULL and not (self.min_bytes != 0 and where.find(cnp.PyArray_DATA(a)).carried) or (
            type(a) is SharedArray and file_view.holds(cnp.PyArray_DATA(a))):
        return reduce_for(a, self.protocol, leases, among_others)
    if self.min_bytes == 0:
        return None
    self.seen += nbytes
    if self.seen < self.min_bytes or nbytes < least_carried or leases == NULL:
        return None
    return carry(self, a, nbytes, leases)


cdef bint goes_by_value(cnp.ndarray a) noexcept:
    """Whether the settings leave an exact ndarray that is a message by itself to ordinary pickling."""
    cdef uint64_t nbytes = cnp.PyArray_NBYTES(a)
    cdef uint64_t min_bytes = settings.min_bytes.load()
    if PyDataType_REFCHK(a.descr) or nbytes != 0 and arena_of(cnp.PyArray_DATA(a)) != NULL:
        return False
    return min_bytes == 0 or nbytes < min_bytes or nbytes < least_carried


cdef bint is_one_segment(cnp.ndarray a) noexcept:
    """Whether the elements lie without gaps, in any order of the axes."""
    cdef cnp.npy_intp expected = cnp.PyArray_ITEMSIZE(a)
    cdef cnp.npy_intp* shape = cnp.PyArray_DIMS(a)
    cdef cnp.npy_intp* strides = cnp.PyArray_STRIDES(a)
    cdef int ndim = cnp.PyArray_NDIM(a)
    cdef int found = 0
    cdef int i
    cdef bint grown = True
    while grown:        # each round finds the axis whose stride is the bytes that the axes before it cover
        grown = False
        for i in range(ndim):
            if shape[i] > 1 and strides[i] == expected:
                expected *= shape[i]
                found += 1
                grown = True
                break
    for i in range(ndim):
        if shape[i] == 1:
            found += 1
    return found == ndim


cdef bint arrives_as_pickled(Reducer self, cnp.ndarray a, cnp.dtype descr):
    """Whether a copy of the array's elements arrives exactly as pickling by this protocol restores it."""
    if not PyArray_ISNBO(descr.byteorder) or descr.type_num in changed_by_pickle:
        return False    # protocol 4 makes them native, and protocol 5 does not
    if descr.type_num >= first_unknown_type:
        return False
    if cnp.PyArray_IS_C_CONTIGUOUS(a) or cnp.PyArray_IS_F_CONTIGUOUS(a):
        return True
    if PyDataType_HASFIELDS(descr):
        return False    # the bytes between the fields would not be copied
    return self.protocol < 5 or not is_one_segment(a)   # protocol 5 keeps the order of the axes


# -- carrying

cdef object carry(Reducer self, cnp.ndarray a, uint64_t nbytes, message* leases):
    """Copies a private array into a block for the message. None: it has to be pickled with its bytes."""
    cdef cnp.dtype descr = a.descr
    cdef allocation block
    cdef claim lease
    cdef uint64_t admitted
    cdef in_hand noted
    cdef bint entered = False
    if not arrives_as_pickled(self, a, descr):
        return None
    if not mine.admit(nbytes, self.limit):
        if self.refused is None:
            refuse(self, MemoryError(
                f"cannot send {nbytes} bytes through shared memory: messages of this process may keep "
                f"{self.limit} bytes there; the knob is max_in_flight of sharedmem.transport"))
        return None
    admitted = nbytes
    try:
        take_or_look(nbytes, &block, &noted)
    except BaseException as error:
        mine.withdraw(admitted)
        if not isinstance(error, (MemoryError, OSError, RuntimeError, ValueError)):
            raise
        refuse(self, error)
        return None
    try:
        if block.bytes > nbytes and mine.admit(block.bytes - nbytes, self.limit):
            admitted = block.bytes
        copy = copy_into(self, a, nbytes, <void*>block.data)
        try:
            lease = lease_in(leases, block.ref)
        except (MemoryError, ValueError) as error:
            refuse(self, error)
            return None
        # If an allocation fails from here on, pickling fails, and the message gives the lease back.
        text = dtype_text(descr)
        state = encode_array(copy, &block, descr, text, lease)
        mine.enter(block.ref.home, lease, admitted)
        entered = True
    finally:
        if not entered:
            mine.withdraw(admitted)
        give_back_memory(&block, &noted)
    self.carried += nbytes
    load = _load_exact if nbytes >= self.zero_copy_from else _copy_out
    return load, (state,) if text is not None else (state, descr)


cdef int take_or_look(uint64_t nbytes, allocation* block, in_hand* noted) except -1:
    try:
        return take_memory(nbytes, block, noted)
    except MemoryError:
        if look() == 0:     # no memory was kept by messages that can no longer be read
            raise
    return take_memory(nbytes, block, noted)


cdef cnp.ndarray copy_into(Reducer self, cnp.ndarray a, uint64_t nbytes, void* target):
    """Copies the elements to `target`; returns an array over them as the receiver is to get it."""
    cdef cnp.dtype descr = a.descr
    cdef bint fortran = cnp.PyArray_IS_F_CONTIGUOUS(a) and not cnp.PyArray_IS_C_CONTIGUOUS(a)
    cdef void* source = cnp.PyArray_DATA(a)
    cdef int flags = cnp.NPY_ARRAY_WRITEABLE
    if fortran:
        flags |= cnp.NPY_ARRAY_F_CONTIGUOUS
    Py_INCREF(descr)
    cdef cnp.ndarray copy = PyArray_NewFromDescr(
        &PyArray_Type, <cnp.PyArray_Descr*>descr, cnp.PyArray_NDIM(a), cnp.PyArray_DIMS(a), NULL, target,
        flags, NULL)
    if not (cnp.PyArray_IS_C_CONTIGUOUS(a) or fortran):
        PyArray_CopyInto(copy, a)
        return copy
    if nbytes < large_bytes:
        memcpy(target, source, nbytes)
    else:
        with nogil:
            copy_bytes(target, source, nbytes)
    # Protocol 5 keeps this flag for arrays that it pickles as buffers: contiguous ones that export a buffer.
    if self.protocol >= 5 and not cnp.PyArray_ISWRITEABLE(a) and has_buffer(a, descr):
        PyArray_CLEARFLAGS(copy, cnp.NPY_ARRAY_WRITEABLE)
    return copy


cdef bint has_buffer(cnp.ndarray a, cnp.dtype descr) except -1:
    """Whether NumPy exports a buffer of arrays of that dtype: not for dates, nor for fields out of order."""
    if descr.kind == c"M" or descr.kind == c"m":
        return False
    if PyDataType_HASFIELDS(descr):
        try:
            memoryview(a)
        except (BufferError, TypeError, ValueError):
            return False
    return True


cdef int refuse(Reducer self, object error) except -1:
    if self.refused is None:
        self.refused = error
    return 0


cdef void count_message(Reducer self) noexcept:
    if self.carried != 0:
        counts.messages.fetch_add(1)
        counts.bytes.fetch_add(self.carried)
    if self.refused is not None:
        counts.by_pipe.fetch_add(1)


def count(Reducer reducer not None):
    """Count a message of this reducer that was pickled completely."""
    count_message(reducer)


# -- settings and numbers

cdef uint64_t share_of_all = 0


cdef uint64_t share_of_all_memory() noexcept:
    """The most bytes in flight by default. Determined only once, since that takes 100 us or more."""
    global share_of_all
    if share_of_all == 0:
        share_of_all = memory_total() // share_of_memory
    return share_of_all


def set_transport(uint64_t min_bytes, uint64_t zero_copy_from, limit=None):
    """Set what `sharedmem.transport` does in this process; a `min_bytes` of 0 switches it off."""
    readers_are_this_user()
    settings.limit.store(share_of_all_memory() if limit is None else limit)
    settings.zero_copy_from.store(zero_copy_from)
    settings.min_bytes.store(min_bytes)


def most_in_flight():
    """Bytes that messages of this process may keep: the setting of `sharedmem.transport`, or its default."""
    return settings.limit.load() if settings.min_bytes.load() != 0 else share_of_all_memory()


def transport_stats():
    """See `sharedmem.stats`."""
    return {"messages": counts.messages.load(), "bytes": counts.bytes.load(), "in_flight": mine.bytes(),
            "by_pipe": counts.by_pipe.load()}


never_zero_copy = UINT64_MAX
zero_copy = <uint64_t>zero_copy_least
