"""Arrays over a mapping that cannot be written to."""

import numpy as np

cimport cython
cimport numpy as cnp
from cpython.object cimport PyObject, PyObject_TypeCheck, PyTypeObject, Py_TYPE
from cpython.ref cimport Py_INCREF

from sharedmem._handles cimport in_one_block
from sharedmem.libsharedmem.arena cimport allocation, arena
from sharedmem.libsharedmem.file_view cimport file_view
from sharedmem.libsharedmem.home cimport arena_of

from sharedmem._startup import import_lock
from sharedmem.array import SharedArray


cdef extern from "<numpy/arrayobject.h>":
    object PyArray_NewFromDescr(PyTypeObject*, cnp.dtype, int, const cnp.npy_intp*, const cnp.npy_intp*,
                                void*, int, PyObject*)


cnp.import_array()

cdef PyTypeObject* shared_array = <PyTypeObject*>SharedArray


@cython.final
@cython.freelist(64)
@cython.no_gc                   # an array is not tracked either
cdef class _Memory:
    """The base of a read-only array: it keeps the memory, and provides no way to write to it."""
    cdef object array


def readonly(a, /):
    """The same memory as an array that no code can write to.

    Parameters
    ----------
    a : numpy.ndarray
        A shared array, or any view of one.

    Returns
    -------
    SharedArray
        It uses the same memory, not a copy: changes made through `a` are visible in it. It keeps the memory
        alive. Its class is that of `a` if that is a subclass of `SharedArray`. If `a` is read-only in this
        sense already, `a` itself.

    Raises
    ------
    TypeError
        `a` is not an array.
    ValueError
        `a` is not shared: use `asshared` to make a shared copy.
    OSError
        The kernel refused to map the memory again: ENOMEM if there is no address space for it,
        PermissionError if this process has changed its user.

    See Also
    --------
    is_shared : Whether an array lies in shared memory.

    Notes
    -----
    The array lies in a second mapping of its segment, or file, which was created without the right
    to write [1]_. NumPy raises `ValueError` when it should write. C, Cython, ctypes or a torch tensor that
    writes there gets a segmentation fault instead of changing the data of all readers, and mprotect(2)
    cannot change that.

    It travels like any shared array. Views of it, and arrays loaded from a pickle of it, are read-only in the
    same sense. A copy (``a.copy()``, ``a.astype(float)``, `sharedmem.copy`) can be written to. NumPy's own
    flag, ``a.flags.writeable = False``, travels as well, but is respected by NumPy only.

    Each process creates one mapping per segment when it first needs it, whatever the number of arrays.
    This protects against mistakes of code that was given the array. Code with a writable array over the same
    memory can still change it, and so can other processes of the same user that attach the memory on purpose.

    References
    ----------
    .. [1] Linux man-pages, shmat(2), SHM_RDONLY; mprotect(2), EACCES.

    Examples
    --------
    >>> a = sharedmem.zeros(3)
    >>> r = sharedmem.readonly(a)
    >>> r[0] = 1
    Traceback (most recent call last):
    ValueError: assignment destination is read-only
    >>> a[0] = 1
    >>> r
    SharedArray([1., 0., 0.])
    """
    cdef cnp.ndarray source
    cdef allocation found
    cdef arena* where
    cdef const void* data
    cdef _Memory memory
    if not cnp.PyArray_Check(a):
        raise TypeError(f"readonly needs an array, not {type(a).__name__}")
    source = <cnp.ndarray>a
    where = arena_of(cnp.PyArray_DATA(source))
    if where == NULL and file_view.holds(cnp.PyArray_DATA(source)):
        with import_lock:
            from sharedmem._mapped import readonly_mapped
        made = readonly_mapped(source)
        if made is not None:
            return made
    if where == NULL or cnp.PyArray_NBYTES(source) > 0 and not in_one_block(source, where, &found):
        raise ValueError("the array is not in shared memory: sharedmem.asshared(a) returns a copy that is")
    data = where.read_only(cnp.PyArray_DATA(source))
    if data == cnp.PyArray_DATA(source):
        return a if PyObject_TypeCheck(a, shared_array) else a.view(SharedArray)
    memory = _Memory.__new__(_Memory)
    memory.array = a
    Py_INCREF(source.descr)     # which the call takes over
    made = PyArray_NewFromDescr(
        shared_array, source.descr, cnp.PyArray_NDIM(source), cnp.PyArray_DIMS(source),
        cnp.PyArray_STRIDES(source), <void*>data, cnp.NPY_ARRAY_ALIGNED, NULL)
    cnp.set_array_base(made, memory)
    if Py_TYPE(a) == shared_array or not PyObject_TypeCheck(a, shared_array):
        return made
    # A subclass copies its attributes from `a`, in its __array_finalize__.
    return np.ndarray.__array_wrap__(a, made)
