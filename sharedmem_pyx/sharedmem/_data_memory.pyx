"""NumPy's own arrays in shared memory: the context manager `allocator`."""

import contextvars

cimport cython
cimport numpy as cnp

from sharedmem.arena cimport export_home, home_arena
from sharedmem.libsharedmem.arena cimport arena
from sharedmem.libsharedmem.home cimport home_if_any

from sharedmem._in_flight import look


cdef extern from "<sharedmem_pyx/data_memory.hpp>" namespace "sharedmem_pyx":
    bint prepare_handlers(int (*)() noexcept) except False
    object handler_capsule(bint)
    str take_refusal()


cdef extern from "<numpy/arrayobject.h>":
    object PyDataMem_SetHandler(object)


cnp.import_array()


cdef int give_back_unread() noexcept:
    """Whether memory came back that was kept by messages which nobody can read."""
    try:
        return look() != 0
    except Exception:
        return False    # NumPy raises its MemoryError


prepare_handlers(give_back_unread)

cdef object with_private_zeros = handler_capsule(False)
cdef object with_shared_zeros = handler_capsule(True)

# The home arena that children know of.
cdef arena* exported = NULL

# The blocks that are open in this context, the innermost last: pairs of the allocator and the handler before
# it. A context variable, as NumPy's handler is one: tasks and threads that use the same allocator do not mix.
cdef object entered = contextvars.ContextVar("sharedmem.allocator", default=())


@cython.final
cdef class allocator:
    """allocator(*, zeros=False)
--

    NumPy's own arrays in shared memory, within a block.

    ``with sharedmem.allocator(): ...`` makes NumPy allocate array data in shared memory, whoever asks for an
    array: ``np.load``, arithmetic, indexing, pandas, SciPy, OpenCV. The arrays are plain ndarrays.
    `is_shared` is true of them, `asshared` makes a SharedArray of one without a copy, and they outlive the
    block as any array does. Processes share them: multiprocessing sends them by handle, not as copies, and a
    forked child has the same memory as its parent.

    Parameters
    ----------
    zeros : bool, optional
        Also memory that NumPy asks to be zero: ``np.zeros`` and what builds on it (``np.eye``,
        ``np.bincount``, ``np.histogram``), and *every array of Python objects*. Pointers to objects
        mean something in one process only. Set it only if no array of objects that was made in the
        block is alive while the process forks.

    Raises
    ------
    OSError, ValueError
        On entering: the system has no shared memory for this process, or a setting in the environment
        means nothing; as `empty`.
    RuntimeError
        On leaving: it was not entered in this context, that is by this thread or task.
    MemoryError
        Within: NumPy's own. When it leaves the block, its ``__cause__`` says how much was asked for and is
        available, which limit was met and what raises it.

    See Also
    --------
    asshared : a SharedArray over the memory of such an array, which any pickler sends by handle.
    zeros : zeros in shared memory.

    Notes
    -----
    An allocator can be entered again, within itself, too, and by several threads at once. It holds for the
    context that enters it (:mod:`contextvars`): for asyncio tasks and ``asyncio.to_thread`` calls that start
    within the block, not for threads that start there. A forked child goes on within the block. It is no
    decorator: write the ``with`` statement within the function.

    Without `zeros` no array of objects is in shared memory, nor are structures with objects and
    ``StringDType``: NumPy asks for zeroed memory for them. The exception is an array of objects that
    ``pickle.loads`` makes within the block. Memory of other libraries stays theirs: Arrow's (text columns of
    pandas), torch's, numba's.

    NumPy calls the allocator by its interface for data memory [1]_.

    References
    ----------
    .. [1] NEP 49, Data allocation strategies.

    Examples
    --------
    >>> with sharedmem.allocator():
    ...     a = np.arange(3) + 1
    >>> sharedmem.is_shared(a)
    True
    """
    # The first line of the docstring is what `inspect.signature` reads; `help` leaves it out.
    cdef object handler

    def __cinit__(self, *args, **options):
        if args:
            raise TypeError(f"allocator() takes no positional arguments ({len(args)} given); name it: zeros=")
        zeros = options.pop("zeros", False)
        if options:
            raise TypeError(f"allocator() got an unexpected keyword argument {next(iter(options))!r}")
        self.handler = with_shared_zeros if zeros else with_private_zeros

    def __enter__(self):
        global exported
        exported = home_arena()     # made now if it is the first: NumPy has no way to say why it can't be
        take_refusal()
        before = PyDataMem_SetHandler(self.handler)
        entered.set((*entered.get(), (self, before)))
        return self

    def __exit__(self, kind, error, trace):
        cdef list inside = list(entered.get())
        cdef Py_ssize_t last = len(inside) - 1
        while last >= 0 and inside[last][0] is not self:
            last -= 1
        if last < 0:
            raise RuntimeError("this allocator was not entered in this context: the thread or task that "
                               "enters it has to leave it")
        before = inside.pop(last)[1]
        if last == len(inside):
            PyDataMem_SetHandler(before)
        else:               # others were entered later and are still open: as in generators that take turns
            inside[last] = (inside[last][0], before)
        entered.set(tuple(inside))
        if home_if_any() != exported:
            export_home()   # another one, since the user of this process has changed
        why = take_refusal()
        # A MemoryError with a text is another one: it may leave the block after NumPy's was caught.
        if why and isinstance(error, MemoryError) and error.__cause__ is None and (
                not error.args or type(error).__module__.startswith("numpy.")):
            error.__cause__ = MemoryError(why)
