"""Atomic operations on elements of arrays: finding an element, and operating on one of them."""
import numpy as np

cimport numpy as cnp
from cpython.bool cimport PyBool_Check
from cpython.long cimport PyLong_CheckExact
from cpython.number cimport PyIndex_Check, PyNumber_AsSsize_t
from cpython.tuple cimport PyTuple_CheckExact


cdef extern from "<sharedmem_pyx/elements.hpp>" namespace "sharedmem_pyx":
    enum operation "sharedmem_pyx::operation":
        op_load "sharedmem_pyx::operation::load"
        op_store "sharedmem_pyx::operation::store"
        op_exchange "sharedmem_pyx::operation::exchange"
        op_add "sharedmem_pyx::operation::add"
        op_sub "sharedmem_pyx::operation::sub"
        op_and "sharedmem_pyx::operation::and_"
        op_or "sharedmem_pyx::operation::or_"
        op_xor "sharedmem_pyx::operation::xor_"

    element element_of(int type_number, size_t nbytes) noexcept
    size_t alignment_of(element) noexcept
    bint has_bits(element) noexcept
    bint is_number(element) noexcept
    object apply(operation what, element of, void* at, object operand)
    object apply_compare_exchange(element of, void* at, object expected, object value)


cnp.import_array()


# -- from an array and an index to an element

cdef element check_array(object a, bint written) except *:
    """The type of an array's elements, if atomic operations support it."""
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
                         f"one of {a.dtype} is at an address that is not a multiple of {alignment_of(of)}")
    return 0


cdef Py_ssize_t read_index(object index, Py_ssize_t size, int axis) except -1:
    """An index of an axis, counted from its beginning."""
    if not PyLong_CheckExact(index) and (
            not PyIndex_Check(index) or PyBool_Check(index) or isinstance(index, np.bool_)):
        raise IndexError(f"the index of an element is one int for each axis, not {type(index).__name__}")
    cdef Py_ssize_t at = PyNumber_AsSsize_t(index, IndexError)
    if at < -size or at >= size:
        raise IndexError(f"index {at} is out of bounds for axis {axis} with size {size}")
    return at + size if at < 0 else at


cdef char* find(cnp.ndarray a, object index, element of) except NULL:
    """The address of the element, after checking that atomic operations can use it."""
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
    """Return the value of an element.

    Parameters
    ----------
    a : numpy.ndarray
        It may be read-only.
    index : int or tuple of int
        Of one element.

    Returns
    -------
    int, float or bool
        A value that one store wrote, never a mixture of two.

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
        Its elements may be set by several processes at the same time.
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
    """Set an element, and return its previous value.

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
        The previous value.

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
        The previous value: the element was set if this is `expected`.

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
        The previous value.

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
        The previous value.

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
        The previous value.

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
        The previous value.

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
        The previous value.

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
