from cpython.object cimport PyTypeObject
from numpy cimport dtype, ndarray, npy_intp

from sharedmem.libsharedmem.arena cimport allocation


# An array of class `cls` (NULL: SharedArray) over bytes of a block; takes the block's reference over,
# also when it raises. `strides` NULL: contiguous, in the order that `flags` say.
cdef object adopt(allocation* block, PyTypeObject* cls, dtype descr, int ndim, const npy_intp* shape,
                  const npy_intp* strides, void* data, int flags, object prototype)

# Whether the object is an ndarray whose data lies in an arena.
cdef bint in_arena(object a) noexcept

# The same, or in a file that is mapped as shared memory.
cdef bint in_shared_memory(object a) noexcept

# Whether the array lies in a block that came to this process as a copy of its own.
cdef bint is_carried(ndarray a) noexcept

# Has `__reduce_ex__(protocol)` of SharedArray and its subclasses return what `reduce(array, protocol)`
# returns.
cdef void pickle_with(object (*reduce)(object, int)) noexcept
