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
    """Whether memory was freed that was kept by messages which can no longer be read."""
    try:
        return look() != 0
    except Exception:
        return False    # NumPy raises its MemoryError


prepare_handlers(give_back_unread)

cdef object with_private_zeros = handler_capsule(False)
cdef object with_shared_zeros = handler_capsule(True)

# The home arena whose location children know.
cdef arena* exported = NULL

# The blocks that are open in this context, the innermost last: pairs of the allocator and the handler before
# it. A context variable, as NumPy's handler is, so that tasks and threads with one allocator do not mix.
cdef object entered = contextvars.ContextVar("sharedmem.allocator", default=())


@cython.final
cdef class allocator:
    """allocator(*, zeros=False)
--

    Context manager that makes NumPy allocate its own arrays in shared memory.

    ``with sharedmem.allocator(): ...`` makes NumPy allocate the data of all arrays in shared memory, whatever
    code creates them: ``np.load``, arithmetic, indexing, pandas, SciPy, OpenCV. They are plain ndarrays.
    `is_shared` returns True for them, `asshared` turns one into a SharedArray without a copy, and they stay
    valid after the block as any array does. Processes share them: multiprocessing sends them by handle, not
    as copies, and a forked child has the same memory as its parent.

    Parameters
    ----------
    zeros : bool, optional
        Also allocate memory in shared memory that NumPy requests as zeroed: for ``np.zeros`` and functions
        based on it (``np.eye``, ``np.bincount``, ``np.histogram``), and for *every array of Python objects*.
        Pointers to objects are valid in one process only, so set this only if no array of objects that was
        created in the block is alive while the process forks.

    Raises
    ------
    OSError, ValueError
        On entering: the system has no shared memory for this process, or a setting in the environment
        is invalid; as `empty`.
    RuntimeError
        On leaving: it was not entered in this context, that is by this thread or task.
    MemoryError
        Within the block: NumPy's own. When it leaves the block, its ``__cause__`` says how much was requested
        and is available, which limit was reached and which setting raises it.

    See Also
    --------
    asshared : Get a SharedArray over the memory of such an array, which any pickler sends by handle.
    zeros : Create an array of zeros in shared memory.

    Notes
    -----
    An allocator can be entered again, also within itself, and by several threads at once. It applies to the
    context that enters it (:mod:`contextvars`): to asyncio tasks and ``asyncio.to_thread`` calls that start
    within the block, but not to threads that start there. A forked child continues within the block. It is
    not a decorator: write the ``with`` statement inside the function.

    Without `zeros`, arrays of objects, structures with objects and ``StringDType`` are never in shared
    memory, because NumPy requests zeroed memory for them. The exception is an array of objects that
    ``pickle.loads`` creates within the block. Memory of other libraries is not affected: Arrow's (text
    columns of pandas), torch's, numba's.

    NumPy calls the allocator through its interface for data memory [1]_.

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
    # `inspect.signature` reads the first line of the docstring; `help` leaves it out.
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
        exported = home_arena()     # created here if it is the first: NumPy could not report why that fails
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
                               "enters it has to exit it")
        before = inside.pop(last)[1]
        if last == len(inside):
            PyDataMem_SetHandler(before)
        else:               # others were entered later and are still open, as in generators that alternate
            inside[last] = (inside[last][0], before)
        entered.set(tuple(inside))
        if home_if_any() != exported:
            export_home()   # a new one, since the user of this process has changed
        why = take_refusal()
        # A MemoryError with a text is another one: it may leave the block after NumPy's error was caught.
        if why and isinstance(error, MemoryError) and error.__cause__ is None and (
                not error.args or type(error).__module__.startswith("numpy.")):
            error.__cause__ = MemoryError(why)
