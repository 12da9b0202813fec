"""The shared words of a Latest: putting an array into them and getting it out of them."""
import ast
import warnings

import numpy as np

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from sharedmem._handles cimport dtype_text, encode_array, in_one_block
from sharedmem.libsharedmem.arena cimport allocation, arena, claim
from sharedmem.libsharedmem.handle cimport byte, bytes_in, decode, handle, locator, no_lease
from sharedmem.libsharedmem.home cimport arena_of

from sharedmem._creation import zeros
from sharedmem._handles import _load
from sharedmem.array import is_shared
from sharedmem.errors import StaleHandleError


cdef extern from "<sharedmem_pyx/latest.hpp>" namespace "sharedmem_pyx":
    enum: frame_room "sharedmem_pyx::frame::room"
    enum: words_bytes "sizeof(sharedmem_pyx::latest_words)"
    uint64_t magic "sharedmem_pyx::latest_words::magic"

    cdef cppclass frame:
        uint64_t number
        uint64_t nonce
        uint32_t lease
        uint16_t handle_bytes
        uint16_t dtype_bytes
        char* data "bytes.data"()

    cdef cppclass latest_words:
        uint64_t mark
        uint32_t writer
        uint64_t writer_start
        uint64_t newest() noexcept
        bint read(uint64_t number, frame&) noexcept
        void write(frame&) noexcept

    void give_back_lease(const locator& where, uint32_t block, uint32_t lease, uint64_t nonce) noexcept


cnp.import_array()


# Size of the words of a Latest in bytes.
size = words_bytes


def new_words():
    """The words of a Latest into which nothing was put."""
    memory = zeros(words_bytes, "u1")
    begin_words(memory)
    return memory


def begin_words(cnp.ndarray memory):
    """Turn zeros, `size` bytes of shared memory, into the words of a Latest."""
    if cnp.PyArray_NBYTES(memory) != words_bytes:
        raise ValueError(f"the words of a Latest have {words_bytes} bytes, not {cnp.PyArray_NBYTES(memory)}")
    words_of(memory).mark = magic


def check_words(memory):
    """Return `memory` if it contains the words of a Latest."""
    if not is_shared(memory) or memory.dtype != "u1" or memory.shape != (words_bytes,) \
            or words_of(memory).mark != magic:
        raise ValueError("there is no Latest in this memory")
    return memory


cdef inline latest_words* words_of(cnp.ndarray memory) noexcept:
    return <latest_words*>cnp.PyArray_DATA(memory)


def newest(cnp.ndarray memory):
    """The number of the newest array; 0: there is none."""
    return words_of(memory).newest()


def writer(cnp.ndarray memory):
    """Pid and start time of the writing process; (0, 0): none. pre: its lock is held."""
    return words_of(memory).writer, words_of(memory).writer_start


def set_writer(cnp.ndarray memory, uint32_t pid, uint64_t start):
    """Record which process writes from now on. pre: its lock is held."""
    words_of(memory).writer = pid
    words_of(memory).writer_start = start


def is_held_elsewhere(cnp.ndarray memory):
    """Whether another process has the words, or a message."""
    cdef arena* where = arena_of(cnp.PyArray_DATA(memory))
    cdef allocation found = where.find(cnp.PyArray_DATA(memory))
    return found.ref.home != NULL and where.held_elsewhere(found.ref)


# -- putting

def put(cnp.ndarray memory, cnp.ndarray a):
    """Make `a`, which lies in shared memory, the newest array; return its number. pre: the lock is held."""
    cdef latest_words* words = words_of(memory)
    cdef arena* where = NULL
    cdef allocation found
    cdef claim c
    cdef frame next
    cdef frame before
    cdef bint had
    cdef bytes state
    cdef bytes name
    cdef cnp.dtype descr = a.descr
    if cnp.PyArray_SIZE(a) > 0 and cnp.PyArray_ITEMSIZE(a) > 0:
        where = arena_of(cnp.PyArray_DATA(a))
    if where == NULL or not in_one_block(a, where, &found):
        raise ValueError("an array without elements, or not in one piece of shared memory, cannot be put")
    text = dtype_text(descr)
    name = b"" if text is not None else described(descr)
    memset(&next, 0, sizeof(frame))
    c = where.share(found.ref, True)
    next.lease = c.lease
    next.nonce = c.nonce
    try:
        c.lease = no_lease      # so that loading the handle does not consume the lease
        c.nonce = 0
        state = encode_array(a, &found, descr, text, c)
        if PyBytes_GET_SIZE(state) + PyBytes_GET_SIZE(name) > frame_room:
            raise ValueError(f"the description of the array has {len(state) + len(name)} bytes, "
                             f"most of them for its dtype; at most {frame_room} fit")
    except BaseException:
        give_back_lease(where.where(), c.block, next.lease, next.nonce)
        raise
    next.handle_bytes = <uint16_t>PyBytes_GET_SIZE(state)
    next.dtype_bytes = <uint16_t>PyBytes_GET_SIZE(name)
    memcpy(next.data(), PyBytes_AS_STRING(state), next.handle_bytes)
    memcpy(next.data() + next.handle_bytes, PyBytes_AS_STRING(name), next.dtype_bytes)
    had = words.read(words.newest(), before)
    words.write(next)
    if had:
        give_back(&before)
    return next.number


def forget(cnp.ndarray memory):
    """Give back the lease of the newest array, which then ends with its holders. pre: the lock is held."""
    cdef frame last
    if words_of(memory).read(words_of(memory).newest(), last):
        give_back(&last)


cdef int give_back(frame* old) except -1:
    cdef handle h
    if old.number > 0:
        h = decode(bytes_in(<byte*>old.data(), old.handle_bytes))
        give_back_lease(h.where, h.what.block, old.lease, old.nonce)
    return 0


cdef bytes described(cnp.dtype descr):
    """A dtype as in the header of a .npy file, from which it is restored without a pickle."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")      # a warning says that something would be lost
        try:
            text = repr(np.lib.format.dtype_to_descr(descr))
            again = np.lib.format.descr_to_dtype(ast.literal_eval(text))
        except (UserWarning, ValueError, TypeError, SyntaxError):
            again = None
    if again is None or again != descr:
        raise TypeError(f"an array of dtype {descr} cannot be put: a .npy file could not describe it")
    return text.encode()


# -- getting

def get(cnp.ndarray memory, uint64_t number):
    """The array of this number, the newest a moment ago; None: it was replaced meanwhile.

    Raises StaleHandleError if it is still the newest, but its memory was freed.
    """
    cdef latest_words* words = words_of(memory)
    cdef frame got
    if not words.read(number, got):
        return None
    state = PyBytes_FromStringAndSize(got.data(), got.handle_bytes)
    dtype = None
    if got.dtype_bytes > 0:
        name = PyBytes_FromStringAndSize(got.data() + got.handle_bytes, got.dtype_bytes)
        dtype = np.lib.format.descr_to_dtype(ast.literal_eval(name.decode()))
    try:
        return _load(state, dtype)
    except StaleHandleError:
        if words.newest() != number:
            return None
        raise
