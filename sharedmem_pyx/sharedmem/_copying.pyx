"""Copies in shared memory of existing arrays and other data."""

import numpy as np

cimport numpy as cnp

from sharedmem.array cimport in_shared_memory, is_carried
from sharedmem._new_array cimport anything, make, plan, plan_like, read_dtype, read_populate, same_bytes

from sharedmem.array import SharedArray
from sharedmem.errors import refuse_unconverted


cdef extern from "<numpy/arrayobject.h>":
    bint PyDataType_REFCHK(cnp.dtype)


cnp.import_array()


cdef bint is_definite(cnp.dtype descr):
    """Whether a dtype describes the items completely, so that values need not be examined."""
    return (cnp.PyDataType_ELSIZE(descr) != 0 and not cnp.PyDataType_HASSUBARRAY(descr)
            and not (descr.kind in b"mM" and np.datetime_data(descr)[0] == "generic"))


def array(obj, dtype=None, order="K", *, ndmin=0):
    """Copy anything that NumPy can turn into an array, in shared memory.

    Parameters
    ----------
    obj : array_like
        Anything that `np.array` accepts. As there, the mask of a masked array is dropped; `share` keeps it.
    dtype : dtype_like, optional
        That of `np.asarray(obj)` by default.
    order : {"K", "A", "C", "F"}, optional
        "K" keeps the order of axes in memory.
    ndmin : int, optional
        Least number of axes; axes of length 1 are put in front.

    Returns
    -------
    SharedArray
        Always a copy.

    Raises
    ------
    MemoryError, TypeError, ValueError, OSError
        As `empty`, and what `np.asarray(obj, dtype)` raises.

    Examples
    --------
    >>> sharedmem.array([[1, 2], [3, 4]])
    SharedArray([[1, 2],
                 [3, 4]])
    """
    cdef plan p
    cdef cnp.ndarray source
    cdef cnp.dtype descr
    if dtype is None:
        source = as_plain(obj)
        descr = source.descr
        if PyDataType_REFCHK(descr) and not isinstance(obj, np.ndarray):
            refuse_unconverted(obj)
    else:
        descr = read_dtype(dtype)
        if PyDataType_REFCHK(descr) or isinstance(obj, np.ndarray) and is_definite(descr):
            source = as_plain(obj)
        else:
            source = np.asarray(obj, descr)
            descr = source.descr
    if ndmin > source.ndim:
        source = np.array(source, ndmin=ndmin, copy=False)
    descr = plan_like(&p, source, descr, order, None)
    how = read_populate(None, p.bytes, True)
    if descr is source.descr and has_layout(source, &p):
        return make(&p, descr, how, same_bytes, cnp.PyArray_DATA(source), NULL, None)
    made = make(&p, descr, how, anything, NULL, NULL, None)
    cnp.PyArray_CopyInto(made, source)
    return made


cdef bint has_layout(cnp.ndarray source, const plan* p) noexcept:
    """Whether the array's items lie in the same order, without gaps, as those of an array of this plan."""
    cdef int i
    if not p.permuted:
        return cnp.PyArray_IS_F_CONTIGUOUS(source) if p.fortran else cnp.PyArray_IS_C_CONTIGUOUS(source)
    for i in range(p.ndim):
        if p.shape[i] != 1 and p.strides[i] != cnp.PyArray_STRIDES(source)[i]:
            return False
    return True


cdef cnp.ndarray as_plain(object obj):
    """Anything as an array whose elements are copied without calling its class."""
    return obj if type(obj) is np.ndarray or type(obj) is SharedArray else np.asarray(obj)


def copy(a, order="K"):
    """Copy an array in shared memory.

    Parameters
    ----------
    a : array_like
        Any array, shared or not.
    order : {"K", "A", "C", "F"}, optional
        As in `array`.

    Returns
    -------
    SharedArray
        Always a copy; `asshared` copies only what is not shared.

    Raises
    ------
    MemoryError, TypeError, ValueError, OSError
        As `array`.
    """
    return array(a, None, order)


def asshared(a, dtype=None, order=None):
    """Return the array itself if it is shared, otherwise a copy in shared memory.

    Parameters
    ----------
    a : array_like
        Any array, shared or not.
    dtype : dtype_like, optional
        The required dtype; an array of another one is copied.
    order : {"K", "A", "C", "F"}, optional
        The required order; "K" and "A" accept any.

    Returns
    -------
    SharedArray
        `a` if it is a shared SharedArray; a view of it if it is another ndarray over shared memory;
        otherwise a copy, without the mask if it is a masked array, which `share` would keep. An array that an
        engine has carried to this process lies in shared memory, but is private to this process, and is
        copied.

    Raises
    ------
    MemoryError, TypeError, ValueError, OSError
        As `array`.
    """
    if in_shared_memory(a) and not is_carried(a) and (
            dtype is None or a.dtype == read_dtype(dtype)) and has_order(a, order):
        return a if isinstance(a, SharedArray) else a.view(SharedArray)
    return array(a, dtype, "K" if order is None else order)


cdef bint has_order(cnp.ndarray a, object order) except -1:
    cdef cnp.NPY_ORDER read = cnp.NPY_KEEPORDER
    if order is not None:
        cnp.PyArray_OrderConverter(order, &read)
    if read == cnp.NPY_CORDER:
        return cnp.PyArray_IS_C_CONTIGUOUS(a)
    return read != cnp.NPY_FORTRANORDER or cnp.PyArray_IS_F_CONTIGUOUS(a)
