"""Arrays through a mapping that cannot write."""

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
    """The base of a read-only array: it keeps the memory, and offers no way to write to it."""
    cdef object array


def readonly(a, /):
    """The same memory as an array that cannot be written to, by whatever code has it.

    Parameters
    ----------
    a : numpy.ndarray
        A shared array, or any view of one.

    Returns
    -------
    SharedArray
        Over the same memory, not a copy: what is written through `a` is seen through it. It keeps the memory
        alive. Of the class of `a` if that is a subclass of `SharedArray`; `a` itself if it is read-only in
        this sense already.

    Raises
    ------
    TypeError
        `a` is no array.
    ValueError
        `a` is not shared: `asshared` makes a shared copy.
    OSError
        The kernel refuses to map the memory once more: ENOMEM if there is no address space for it,
        PermissionError if this process has changed its user.

    See Also
    --------
    is_shared : whether an array lies in shared memory.

    Notes
    -----
    The array lies in a second mapping of its segment, or file, which the kernel has made without the right
    to write [1]_. So `ValueError` is what NumPy raises, and C, Cython, ctypes or a torch tensor that writes
    there gets a segmentation fault, instead of changing what all others read. mprotect(2) cannot change that.

    It travels like any shared array: views of it, and whoever loads a pickle of it, are read-only in the same
    sense. A copy (``a.copy()``, ``a.astype(float)``, `sharedmem.copy`) can be written to. NumPy's own flag,
    ``a.flags.writeable = False``, travels as well, but binds NumPy only.

    Each process makes one mapping per segment when it first needs it, whatever the number of arrays.
    It protects against mistakes of those who were given the array. Whoever has a writable array over the same
    memory can still change it, and so can other processes of the same user who attach the memory on purpose.

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
        raise ValueError("the array is not in shared memory: sharedmem.asshared(a) is a copy that is")
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
    # A subclass gets its attributes from `a`, in its __array_finalize__.
    return np.ndarray.__array_wrap__(a, made)
