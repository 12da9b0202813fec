"""Atomic operations on elements of arrays: what sharedmem.atomics shows."""
import operator
import time

import numpy as np

cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from cpython.long cimport PyLong_CheckExact
from cpython.number cimport PyIndex_Check, PyNumber_AsSsize_t
from cpython.tuple cimport PyTuple_CheckExact
from cpython.bool cimport PyBool_Check
from libc.stdint cimport uint32_t

from sharedmem.libsharedmem.futex cimport wait_on, wake
from sharedmem.libsharedmem.robust_mutex cimport nanoseconds


cdef extern from "<sharedmem_pyx/elements.hpp>" namespace "sharedmem_pyx":
    enum element "sharedmem_pyx::element":
        other "sharedmem_pyx::element::other"

    enum operation "sharedmem_pyx::operation":
        op_load "sharedmem_pyx::operation::load"
        op_store "sharedmem_pyx::operation::store"
        op_exchange "sharedmem_pyx::operation::exchange"
        op_add "sharedmem_pyx::operation::add"
        op_sub "sharedmem_pyx::operation::sub"
        op_and "sharedmem_pyx::operation::and_"
        op_or "sharedmem_pyx::operation::or_"
        op_xor "sharedmem_pyx::operation::xor_"

    cdef cppclass row:
        char* first
        Py_ssize_t step
        Py_ssize_t count

    element element_of(int type_number, size_t nbytes) noexcept
    size_t alignment_of(element) noexcept
    bint has_bits(element) noexcept
    bint is_number(element) noexcept
    bint can_be_waited_for(element) noexcept
    object apply(operation what, element of, void* at, object operand)
    object apply_compare_exchange(element of, void* at, object expected, object value)
    bint read_value(element of, object value, void* out) except False
    bint read_word(element of, object value, uint32_t* out) except False
    Py_ssize_t add_each(element of, row to, const Py_ssize_t* indices, Py_ssize_t count, const char* values,
                        Py_ssize_t step) noexcept nogil
    Py_ssize_t first_wrong(const Py_ssize_t* indices, Py_ssize_t count, Py_ssize_t size) noexcept nogil


cdef extern from "<sharedmem_pyx/atomics.hpp>" namespace "sharedmem_pyx::atomics" nogil:
    uint32_t load_word "sharedmem_pyx::atomics::load"(const uint32_t*) noexcept
    nanoseconds span_of(double seconds) noexcept


cdef enum:
    many = 1000     # additions from which on other threads may run meanwhile


cnp.import_array()

# Seconds between two looks for a signal such as Ctrl-C, whose handler runs in the main thread only.
cdef double slice_of_wait = 0.1


# -- from an array and an index to an element

cdef element check_array(object a, bint written) except *:
    """What the elements of an array are, if atomic operations work on them."""
    if not cnp.PyArray_Check(a):
        raise TypeError(f"atomics work on elements of an ndarray, not of {type(a).__name__}")
    cdef cnp.ndarray array = a
    cdef element of = element_of(cnp.PyArray_TYPE(array), cnp.PyArray_ITEMSIZE(array))
    if of == other:
        more = "; take one of its fields" if array.dtype.names is not None else ""
        raise TypeError("atomics work on bool, integers of 1 to 8 bytes, float32 and float64, not on "
                        f"{array.dtype}{more}")
    if not cnp.PyArray_ISNOTSWAPPED(array):
        raise TypeError(f"atomics need elements in the byte order of this machine, not {array.dtype.str}")
    if written and not cnp.PyArray_ISWRITEABLE(array):
        raise ValueError("the array is read-only")
    return of


cdef int check_address(const void* at, element of, object a) except -1:
    if <size_t>at % alignment_of(of) != 0:
        raise ValueError("atomics need elements that are aligned to their size: "
                         f"one of {a.dtype} is at an address that is no multiple of {alignment_of(of)}")
    return 0


cdef Py_ssize_t read_index(object index, Py_ssize_t size, int axis) except -1:
    """An index of an axis, counted from its beginning."""
    if not PyLong_CheckExact(index) and (
            not PyIndex_Check(index) or PyBool_Check(index) or isinstance(index, np.bool_)):
        raise IndexError(f"one element has an int for each axis as its index, not {type(index).__name__}")
    cdef Py_ssize_t at = PyNumber_AsSsize_t(index, IndexError)
    if at < -size or at >= size:
        raise IndexError(f"index {at} is out of bounds for axis {axis} with size {size}")
    return at + size if at < 0 else at


cdef char* find(cnp.ndarray a, object index, element of) except NULL:
    """The address of the element, which is one that atomic operations work on."""
    cdef char* at = <char*>cnp.PyArray_DATA(a)
    cdef int ndim = cnp.PyArray_NDIM(a)
    cdef int axis
    if ndim == 1 and not PyTuple_CheckExact(index):
        at += read_index(index, cnp.PyArray_DIMS(a)[0], 0) * cnp.PyArray_STRIDES(a)[0]
    else:
        indices = index if isinstance(index, tuple) else (index,)
        if len(indices) != ndim:
            raise IndexError(f"an element in {ndim} dimensions has {ndim} indices, not {len(indices)}")
        for axis in range(ndim):
            at += read_index(indices[axis], cnp.PyArray_DIMS(a)[axis], axis) * cnp.PyArray_STRIDES(a)[axis]
    check_address(at, of, a)
    return at


# -- operations on one element

def load(a, index, /):
    """The value of an element.

    Parameters
    ----------
    a : numpy.ndarray
        It may be read-only.
    index : int or tuple of int
        Of one element.

    Returns
    -------
    int, float or bool
        What a single store wrote, never a mixture of two.

    Raises
    ------
    TypeError, ValueError, IndexError
        As the module says.
    """
    cdef element of = check_array(a, False)
    return apply(op_load, of, find(a, index, of), None)


def store(a, index, value, /):
    """Set an element.

    Parameters
    ----------
    a : numpy.ndarray
        Its elements may be set by any process at the same time.
    index : int or tuple of int
        Of one element.
    value : int, float or bool
        A value that the element can have.

    Raises
    ------
    TypeError, ValueError, IndexError, OverflowError
        As the module says.
    """
    cdef element of = check_array(a, True)
    apply(op_store, of, find(a, index, of), value)


def exchange(a, index, value, /):
    """Set an element, and return what it was.

    Parameters
    ----------
    a : numpy.ndarray
        Its elements may be changed by any process at the same time.
    index : int or tuple of int
        Of one element.
    value : int, float or bool
        A value that the element can have.

    Returns
    -------
    int, float or bool
        The value before.

    Raises
    ------
    TypeError, ValueError, IndexError, OverflowError
        As the module says.
    """
    cdef element of = check_array(a, True)
    return apply(op_exchange, of, find(a, index, of), value)


def compare_exchange(a, index, expected, value, /):
    """Set an element if it has an expected value.

    Parameters
    ----------
    a : numpy.ndarray
        Its elements may be changed by any process at the same time.
    index : int or tuple of int
        Of one element.
    expected : int, float or bool
        The element is set only if it has this value. Floats are compared by their bytes: 0.0 is not -0.0,
        and a NaN is itself.
    value : int, float or bool
        A value that the element can have.

    Returns
    -------
    int, float or bool
        The value before: the element was set if this is `expected`.

    Raises
    ------
    TypeError, ValueError, IndexError, OverflowError
        As the module says.
    """
    cdef element of = check_array(a, True)
    return apply_compare_exchange(of, find(a, index, of), expected, value)


def add(a, index, value, /):
    """Add to an element.

    Parameters
    ----------
    a : numpy.ndarray
        Of integers or floats; its elements may be changed by any process at the same time.
    index : int or tuple of int
        Of one element.
    value : int or float
        What is added. Sums of integers wrap around, as NumPy's do.

    Returns
    -------
    int or float
        The value before.

    Raises
    ------
    TypeError, ValueError, IndexError, OverflowError
        As the module says.
    """
    cdef element of = check_array(a, True)
    check_number(of, "add")
    return apply(op_add, of, find(a, index, of), value)


def sub(a, index, value, /):
    """Subtract from an element.

    Parameters
    ----------
    a : numpy.ndarray
        Of integers or floats; its elements may be changed by any process at the same time.
    index : int or tuple of int
        Of one element.
    value : int or float
        What is subtracted. Differences of integers wrap around, as NumPy's do.

    Returns
    -------
    int or float
        The value before.

    Raises
    ------
    TypeError, ValueError, IndexError, OverflowError
        As the module says.
    """
    cdef element of = check_array(a, True)
    check_number(of, "sub")
    return apply(op_sub, of, find(a, index, of), value)


def and_(a, index, value, /):
    """Clear the bits of an element that `value` does not have.

    Parameters
    ----------
    a : numpy.ndarray
        Of integers or bool; its elements may be changed by any process at the same time.
    index : int or tuple of int
        Of one element.
    value : int or bool
        The other operand of ``&``.

    Returns
    -------
    int or bool
        The value before.

    Raises
    ------
    TypeError, ValueError, IndexError, OverflowError
        As the module says.
    """
    cdef element of = check_array(a, True)
    check_bits(of, "and_", a)
    return apply(op_and, of, find(a, index, of), value)


def or_(a, index, value, /):
    """Set the bits of an element that `value` has.

    Parameters
    ----------
    a : numpy.ndarray
        Of integers or bool; its elements may be changed by any process at the same time.
    index : int or tuple of int
        Of one element.
    value : int or bool
        The other operand of ``|``.

    Returns
    -------
    int or bool
        The value before.

    Raises
    ------
    TypeError, ValueError, IndexError, OverflowError
        As the module says.
    """
    cdef element of = check_array(a, True)
    check_bits(of, "or_", a)
    return apply(op_or, of, find(a, index, of), value)


def xor(a, index, value, /):
    """Flip the bits of an element that `value` has.

    Parameters
    ----------
    a : numpy.ndarray
        Of integers or bool; its elements may be changed by any process at the same time.
    index : int or tuple of int
        Of one element.
    value : int or bool
        The other operand of ``^``.

    Returns
    -------
    int or bool
        The value before.

    Raises
    ------
    TypeError, ValueError, IndexError, OverflowError
        As the module says.
    """
    cdef element of = check_array(a, True)
    check_bits(of, "xor", a)
    return apply(op_xor, of, find(a, index, of), value)


cdef int check_number(element of, str name) except -1:
    if not is_number(of):
        raise TypeError(f"{name} works on integers, float32 and float64, not on bool")
    return 0


cdef int check_bits(element of, str name, object a) except -1:
    if not has_bits(of):
        raise TypeError(f"{name} works on integers and bool, not on {a.dtype}")
    return 0


# -- waiting

cdef element check_word(object a) except *:
    cdef element of = check_array(a, False)
    if not can_be_waited_for(of):
        raise TypeError(f"the kernel waits for int32 and uint32, not for {a.dtype}")
    return of


def end_of_wait(timeout):
    """When a wait ends that begins now, by `time.monotonic`; infinity for None."""
    return time.monotonic() + seconds_of(timeout)


cdef double seconds_of(object timeout) except? -1:
    """The seconds of a timeout; infinity for None."""
    if timeout is None:
        return float("inf")
    cdef double seconds = timeout
    if seconds != seconds:
        raise ValueError("the timeout is not a number")
    return seconds


def wait(a, index, value, timeout=None):
    """Sleep while an element has a value.

    Parameters
    ----------
    a : numpy.ndarray
        Of int32 or uint32; it may be read-only.
    index : int or tuple of int
        Of one element.
    value : int
        The call returns as soon as the element has another value, and at once if it has one now. Whoever
        changes it calls `notify` afterwards.
    timeout : float or None, optional
        Seconds to wait at most; None: as long as it takes.

    Returns
    -------
    bool
        Whether the element had another value; False: the time was up.

    Raises
    ------
    TypeError, ValueError, IndexError, OverflowError
        As the module says. TypeError also for elements of another size: the kernel waits for words of 32
        bits.

    Notes
    -----
    Ctrl-C and other signals are handled while it waits. The element is looked at ten times a second even if
    nobody notifies, so that a process that is killed between its change and `notify` keeps nobody asleep.

    References
    ----------
    .. [1] Linux man-pages, futex(2).
    """
    cdef element of = check_word(a)
    cdef const uint32_t* word = <const uint32_t*>find(a, index, of)
    cdef uint32_t same = 0
    read_word(of, value, &same)
    return sleep_while(word, same, seconds_of(timeout))


cdef bint sleep_while(const uint32_t* word, uint32_t same, double seconds) except -1:
    """Whether the word has another value than `same`, within so many seconds."""
    cdef double left = seconds
    cdef double end
    if load_word(word) != same:
        return True
    end = time.monotonic() + seconds
    while left > 0:
        with nogil:
            wait_on(word, same, span_of(min(left, slice_of_wait)))
        PyErr_CheckSignals()
        if load_word(word) != same:
            return True
        left = end - time.monotonic()
    return False


def notify(a, index, count=None):
    """Wake processes and threads that wait for an element.

    Parameters
    ----------
    a : numpy.ndarray
        Of int32 or uint32.
    index : int or tuple of int
        Of one element, which was changed before.
    count : int or None, optional
        How many to wake at most; None: all.

    Returns
    -------
    int
        How many were woken.

    Raises
    ------
    TypeError, ValueError, IndexError
        As the module says; TypeError for a `count` that is no integer, ValueError for a negative one.
    """
    cdef element of = check_word(a)
    cdef const uint32_t* word = <const uint32_t*>find(a, index, of)
    cdef int most = 2**31 - 1
    if count is not None:
        number = operator.index(count)
        if number < 0:
            raise ValueError(f"the count of whom to wake is {count}")
        most = min(number, most)
    return wake(word, most)


# -- many elements

def add_at(a, indices, values, /):
    """Add to elements that are chosen as in ``a[indices]``, each addition atomic.

    It does what ``np.add.at(a, indices, values)`` does, and no addition is lost while other processes and
    threads do the same.

    Parameters
    ----------
    a : numpy.ndarray
        Of integers or floats; its elements may be changed by any process at the same time.
    indices : int, slice, array_like or tuple of these
        What ``a[indices]`` understands. An element that is chosen twice gets both additions.
    values : array_like
        Broadcast to the shape of ``a[indices]``.

    Raises
    ------
    IndexError
        An index is out of bounds or no index; then nothing was added.
    TypeError, ValueError, OverflowError
        As the module says; TypeError also if `values` can't be cast by NumPy's rule "same_kind".

    See Also
    --------
    numpy.add.at : The same for one thread of one process.
    """
    cdef element of = check_array(a, True)
    check_number(of, "add_at")
    check_layout(a, of)
    if cnp.PyArray_NDIM(a) == 1 and is_row_of_indices(indices):
        if np.may_share_memory(a, indices):
            indices = indices.copy()
        add_to(a, of, np.ascontiguousarray(indices, np.intp), values, <char*>cnp.PyArray_DATA(a),
               cnp.PyArray_STRIDES(a)[0], cnp.PyArray_DIMS(a)[0])
        return
    # The elements by the distance of each from the one with the lowest address.
    lowest = sum([(size - 1) * step for size, step in zip(a.shape, a.strides, strict=True) if step < 0])
    reach = sum([(size - 1) * abs(step) for size, step in zip(a.shape, a.strides, strict=True)]) + 1
    offsets = np.ascontiguousarray(np.asarray(offsets_of(a, indices)) - lowest, np.intp)
    add_to(a, of, offsets, values, <char*>cnp.PyArray_DATA(a) + <Py_ssize_t>lowest, 1, reach)


cdef int check_layout(cnp.ndarray a, element of) except -1:
    """Whether every element is aligned: the first one is, and so are the steps to the others."""
    cdef int axis
    if cnp.PyArray_SIZE(a) > 0:
        check_address(cnp.PyArray_DATA(a), of, a)
        for axis in range(cnp.PyArray_NDIM(a)):
            if cnp.PyArray_DIMS(a)[axis] > 1:
                check_address(<char*>cnp.PyArray_DATA(a) + cnp.PyArray_STRIDES(a)[axis], of, a)
    return 0


cdef bint is_row_of_indices(object indices):
    return isinstance(indices, np.ndarray) and indices.dtype.kind in "iu" and indices.ndim > 0 \
        and np.can_cast(indices.dtype, np.intp, "same_kind")


def offsets_of(a, indices):
    """Bytes from the first element of `a` to each of those that ``a[indices]`` has, in its shape.

    NumPy itself applies the indices, to the offsets that each axis contributes.
    """
    entries = indices if isinstance(indices, tuple) else (indices,)
    if all(entry is None or entry is Ellipsis or isinstance(entry, slice) for entry in entries):
        chosen = np.asarray(a)[indices if Ellipsis in entries else (*entries, Ellipsis)]     # a view
        total = np.zeros((), np.intp) + (address_of(chosen) - address_of(a))
        for axis, (size, step) in enumerate(zip(chosen.shape, chosen.strides, strict=True)):
            total = total + along(size, step, axis, chosen.ndim)
        return np.broadcast_to(total, chosen.shape)
    total = np.zeros((), np.intp)
    for axis, (size, step) in enumerate(zip(a.shape, a.strides, strict=True)):
        total = total + np.broadcast_to(along(size, step, axis, a.ndim), a.shape)[indices]
    return total


cdef object address_of(object a):
    return <size_t>cnp.PyArray_DATA(a) if cnp.PyArray_SIZE(a) > 0 else 0


cdef object along(object size, object step, object axis, object ndim):
    """Offsets of the elements along one axis of an array, to be broadcast along the others."""
    shape = [1] * ndim
    shape[axis] = size
    return (np.arange(size, dtype=np.intp) * step).reshape(shape)


cdef int add_to(cnp.ndarray a, element of, cnp.ndarray indices, object values, char* first, Py_ssize_t step,
                Py_ssize_t size) except -1:
    """Adds to the elements with these indices in a row of `size` that are `step` bytes apart."""
    cdef Py_ssize_t count = cnp.PyArray_SIZE(indices)
    cdef const Py_ssize_t* chosen = <const Py_ssize_t*>cnp.PyArray_DATA(indices)
    cdef cnp.ndarray added = operands(a, of, values, indices)
    cdef const char* operand = <const char*>cnp.PyArray_DATA(added)
    cdef Py_ssize_t operand_step = cnp.PyArray_ITEMSIZE(added) if cnp.PyArray_NDIM(added) > 0 else 0
    cdef row to
    cdef Py_ssize_t wrong
    to.first = first
    to.step = step
    to.count = size
    if count < many:
        wrong = first_wrong(chosen, count, size)
        if wrong < 0:
            wrong = add_each(of, to, chosen, count, operand, operand_step)
    else:
        with nogil:
            wrong = first_wrong(chosen, count, size)
            if wrong < 0:
                wrong = add_each(of, to, chosen, count, operand, operand_step)
    if wrong >= 0:
        raise IndexError(f"index {chosen[wrong]} is out of bounds for axis 0 with size {size}")
    return 0


cdef cnp.ndarray operands(cnp.ndarray a, element of, object values, cnp.ndarray indices):
    """What is added: one element, or as many in a row as there are indices."""
    cdef cnp.ndarray one
    if isinstance(values, (int, float)) and not isinstance(values, np.generic):
        one = np.empty((), a.dtype)
        read_value(of, values, cnp.PyArray_DATA(one))
        return one
    found = np.asarray(values).astype(a.dtype, casting="same_kind", copy=False)
    if np.may_share_memory(a, found):
        found = found.copy()    # what is added is what was there at the call, as with np.add.at
    if found.ndim == 0:
        return np.array(found)
    return np.ascontiguousarray(np.broadcast_to(found, (<object>indices).shape))
