# Atomic operations on one element, inline and without the GIL: `cimport sharedmem.atomics as atomics`, then
# `atomics.add(&counts[i], 1)`. They are the functions of the Python module, but for the address in place of
# array and index. T: integers of 1 to 8 bytes, float and double, aligned to their size. Values are converted
# to T as C does it, but for floats to integers, which do not compile. Integers wrap.
from sharedmem.libsharedmem.handle cimport set_python_error


cdef extern from "<sharedmem_pyx/atomics.hpp>" namespace "sharedmem_pyx::atomics" nogil:
    T load[T](const T* at) noexcept
    void store[T, V](T* at, V value) noexcept

    # These return the value before.
    T exchange[T, V](T* at, V value) noexcept
    T compare_exchange[T, E, V](T* at, E expected, V value) noexcept
    T add[T, V](T* at, V value) noexcept
    T sub[T, V](T* at, V value) noexcept
    T and_[T, V](T* at, V value) noexcept
    T or_[T, V](T* at, V value) noexcept
    T xor "sharedmem_pyx::atomics::xor_"[T, V](T* at, V value) noexcept

    # Sleeps while the element, an integer of 4 bytes, has the value; False after so many seconds (INFINITY:
    # for ever). Signals do not end it. These two need the library: libraries=["sharedmem"].
    bint wait[T, V](const T* at, V value, double seconds) except +set_python_error
    int notify[T](const T* at, int count) noexcept
