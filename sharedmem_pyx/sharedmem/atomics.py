"""Atomic operations on single elements of arrays, between processes and threads.

>>> from sharedmem import atomics
>>> counts = sharedmem.zeros(10, int)
>>> atomics.add(counts, 3, 1)
0
>>> atomics.load(counts, 3)
1

Each function works on one element of an array `a`, an ndarray in shared memory or elsewhere. `index`, an int
or a tuple of ints, selects the element. Elements are bool, integers of 1 to 8 bytes, float32 or float64,
in the byte order of the machine and aligned to their size. The functions that change an element return the
value that it had before. All are sequentially consistent: every process sees all of them in one order, and
what a process wrote before such a call is visible to others after their calls. A process that is killed
leaves an element either as it was or changed.

They raise `TypeError` for another dtype or byte order, and for a value of another kind, `OverflowError` for
an integer that the element cannot have, `ValueError` for an array that is read-only (if it would be
changed) or not aligned, `IndexError` for an invalid index of one element.

In Cython ``cimport sharedmem.atomics`` has the same functions inline, for addresses of elements and without
the GIL.
"""

from sharedmem._atomics import (
    add,
    and_,
    compare_exchange,
    exchange,
    load,
    or_,
    store,
    sub,
    xor,
)
from sharedmem._atomics_add_at import add_at
from sharedmem._atomics_waiting import notify, wait

__all__ = [
    "add",
    "add_at",
    "and_",
    "compare_exchange",
    "exchange",
    "load",
    "notify",
    "or_",
    "store",
    "sub",
    "wait",
    "xor",
]
