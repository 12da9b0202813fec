"""Atomic additions to many elements of an array: `sharedmem.atomics.add_at`."""
import numpy as np

cimport numpy as cnp

from sharedmem._atomics cimport check_address, check_array, check_number, element


cdef extern from "<sharedmem_pyx/elements.hpp>" namespace "sharedmem_pyx":
    cdef cppclass row:
        char* first
        Py_ssize_t step
        Py_ssize_t count

    bint read_value(element of, object value, void* out) except False
    Py_ssize_t add_each(element of, row to, const Py_ssize_t* indices, Py_ssize_t count, const char* values,
                        Py_ssize_t step) noexcept nogil
    Py_ssize_t first_wrong(const Py_ssize_t* indices, Py_ssize_t count, Py_ssize_t size) noexcept nogil


cdef enum:
    many = 1000     # number of additions from which on the GIL is released meanwhile


cnp.import_array()


def add_at(a, indices, values, /):
    """Add to the elements that ``a[indices]`` selects, each addition atomic.

    It does the same as ``np.add.at(a, indices, values)``, but no addition is lost while other processes and
    threads do the same.

    Parameters
    ----------
    a : numpy.ndarray
        Of integers or floats; its elements may be changed by any process at the same time.
    indices : int, slice, array_like or tuple of these
        Anything that ``a[indices]`` accepts. An element that is selected twice gets both additions.
    values : array_like
        Broadcast to the shape of ``a[indices]``.

    Raises
    ------
    IndexError
        An index is out of bounds or not an index; then nothing was added.
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
    # The elements, by the distance of each from the one with the lowest address.
    lowest = sum([(size - 1) * step for size, step in zip(a.shape, a.strides, strict=True) if step < 0])
    reach = sum([(size - 1) * abs(step) for size, step in zip(a.shape, a.strides, strict=True)]) + 1
    offsets = np.ascontiguousarray(np.asarray(offsets_of(a, indices)) - lowest, np.intp)
    add_to(a, of, offsets, values, <char*>cnp.PyArray_DATA(a) + <Py_ssize_t>lowest, 1, reach)


cdef int check_layout(cnp.ndarray a, element of) except -1:
    """Whether every element is aligned: the first one, and the steps to the others."""
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
    """Bytes from the first element of `a` to each element of ``a[indices]``, in the shape of that.

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
    """Add to the elements with these indices in a row of `size` elements that are `step` bytes apart."""
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
    """The values to add: one element, or as many in a row as there are indices."""
    cdef cnp.ndarray one
    if isinstance(values, (int, float)) and not isinstance(values, np.generic):
        one = np.empty((), a.dtype)
        read_value(of, values, cnp.PyArray_DATA(one))
        return one
    found = np.asarray(values).astype(a.dtype, casting="same_kind", copy=False)
    if np.may_share_memory(a, found):
        found = found.copy()    # the values are those at the time of the call, as with np.add.at
    if found.ndim == 0:
        return np.array(found)
    return np.ascontiguousarray(np.broadcast_to(found, (<object>indices).shape))
