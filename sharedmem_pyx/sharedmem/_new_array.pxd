# How a new array is made: a plan of its layout, then its memory, then the array over it.
from cpython.object cimport PyTypeObject
from numpy cimport dtype, ndarray, npy_intp

from sharedmem.libsharedmem.arena cimport pages


cdef enum:
    most_axes = 64


cdef struct plan:
    int ndim
    bint fortran
    bint permuted                       # neither C nor Fortran order: `strides` has it
    npy_intp shape[most_axes]
    npy_intp strides[most_axes]
    npy_intp items
    npy_intp bytes


cdef enum content:
    anything
    zero
    one_item                            # copies of the item at `source`
    same_bytes                          # those at `source`


# The dtype that an argument means, objects refused.
cdef dtype read_dtype(object argument)

# Plans of an array from the arguments of `empty`, and of one like a prototype; `descr` becomes the
# dtype that it will have.
cdef dtype plan_new(plan* p, object shape, dtype descr, object order)
cdef dtype plan_like(plan* p, ndarray prototype, dtype descr, object order, object shape)

# How pages are had, by the argument `populate` and whether all bytes will be written at once.
cdef pages read_populate(object populate, npy_intp nbytes, bint written) except *

# The array of a plan; of class `cls`, NULL for SharedArray.
cdef object make(plan* p, dtype descr, pages how, content what, const void* source, PyTypeObject* cls,
                 object prototype)

# The same, full of a value that is cast as `np.copyto` casts.
cdef object make_full(plan* p, dtype descr, object value, object populate, PyTypeObject* cls,
                      object prototype)
