"""The common base of `Lock` and `RLock`: a lock in shared memory that knows which thread holds it."""
import sys
import time
import warnings

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint64_t

from sharedmem._atomics_waiting cimport seconds_of
from sharedmem.libsharedmem.robust_mutex cimport (
    busy, inherited, nanoseconds, owner_report, owner_state, robust_mutex, robust_mutex_bytes,
    robust_mutex_outcome,
)

from sharedmem._arguments import read_arguments
from sharedmem._messages import no_deep_copy
from sharedmem._startup import at_fork, import_lock
from sharedmem.array import is_shared
from sharedmem._creation import empty

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_native_id()


cdef extern from *:
    """
    #include <atomic>
    #include <cstdint>

    // The calling thread's number, which no other thread of this process has or ever had. The kernel gives
    // the id of a thread that has ended to a new one, and so does Python.
    inline std::uint64_t thread_number() noexcept {
      static std::atomic<std::uint64_t> last{0};
      thread_local const std::uint64_t mine = ++last;
      return mine;
    }
    """
    uint64_t thread_number() noexcept


# Seconds between two checks for a signal such as Ctrl-C, which does not end a wait for a mutex.
cdef double slice_of_wait = 0.1


@cython.final
cdef class Hold:
    """How a thread of this process holds a lock."""

    cdef bint is_mine(self) noexcept:
        return self.number == thread_number() and self.thread == PyThread_get_thread_native_id()


# Address of a lock -> Hold. An entry belongs to the thread that holds the lock: only that thread
# adds and removes it, while it holds the lock.
cdef dict holds = {}
at_fork(after_in_child=holds.clear)      # a child holds nothing
# Number of further new locks after which `holds` is searched for entries that ended threads have left.
cdef Py_ssize_t until_search = 0


cdef class LockBase:
    """A lock in shared memory; subclasses decide what happens when a thread acquires it twice.
    """

    def __cinit__(self, *args, **keywords):
        cdef unsigned char[::1] view
        kind = type(self).__name__
        memory = keywords.pop("_memory", None)
        name = read_arguments(kind, args, keywords, names=("name",)).get("name")
        if name is not None:
            memory = named_lock(name, kind)
        if memory is None:
            self.memory = empty(robust_mutex_bytes, "u1")
        elif is_shared(memory):
            self.memory = memory
        else:
            raise ValueError("the memory of a lock must be shared")
        view = self.memory
        if view.shape[0] != <Py_ssize_t>robust_mutex_bytes:
            raise ValueError(f"a lock has {robust_mutex_bytes} bytes, not {view.shape[0]}")
        self.key = <size_t>&view[0]
        if memory is None:
            self.c_obj = robust_mutex.create(&view[0])
        else:
            self.c_obj = robust_mutex.open(&view[0])

    cdef Hold mine(self):
        """How the calling thread holds the lock; None: it does not."""
        cdef Hold hold = holds.get(self.key)
        return hold if hold is not None and hold.is_mine() else None

    cdef bint obtain(self, object block, object timeout) except -1:
        """Whether the calling thread, which did not hold the lock, holds it now: `acquire`."""
        cdef double seconds = 0.0
        if block:
            seconds = seconds_of(timeout)
        how = self.wait(seconds)
        if how == busy:
            return False
        self.take(how)
        return True

    cdef robust_mutex_outcome wait(self, double timeout) except *:
        if not self.asked:
            self.asked = True
            drop_what_the_dead_left()
        cdef robust_mutex_outcome how = self.c_obj.try_lock()
        if how != busy or timeout <= 0:
            return how
        cdef double end = time.monotonic() + timeout
        cdef double left = timeout
        while how == busy and left > 0:
            left = min(left, slice_of_wait)
            with nogil:
                how = self.c_obj.try_lock_for(nanoseconds(<long long>(left * 1e9)))
            if how == busy:
                PyErr_CheckSignals()
                left = end - time.monotonic()
        return how

    cdef int take(self, robust_mutex_outcome how) except -1:
        cdef Hold hold
        try:
            hold = Hold.__new__(Hold)
            hold.memory = self.memory
            hold.c_obj = self.c_obj
            hold.thread = PyThread_get_thread_native_id()
            hold.number = thread_number()
            hold.depth = 1
            holds[self.key] = hold
            if how == inherited:
                warnings.warn("a thread or process ended while it held this lock: what the lock guards "
                              "may be half-written", RuntimeWarning, stacklevel=level_of_caller())
        except BaseException:
            holds.pop(self.key, None)
            self.c_obj.unlock()
            raise
        return 0

    cdef int give_back(self) except -1:
        """Undo one `obtain`; after the last time others can acquire the lock."""
        cdef Hold hold = self.mine()
        if hold is None:
            raise self.not_held()
        hold.depth -= 1
        if hold.depth == 0:
            del holds[self.key]
            self.c_obj.unlock()
        return 0

    cdef object not_held(self):
        """The exception for a thread that releases a lock which it does not hold."""
        return AssertionError("attempt to release a lock that this thread does not hold")

    cdef bint is_held(self) except -1:
        """Whether a thread of any process holds the lock: `locked`."""
        cdef owner_report seen = self.c_obj.owner()
        if seen.what == owner_state.unknown:
            raise NotImplementedError("the system does not say who holds a lock; try acquire(block=False)")
        return seen.what == owner_state.held

    def __enter__(self):
        return self.obtain(True, None)

    def __exit__(self, *exception):
        # A Ctrl-C in the middle of a condition's wait may come when the lock was not acquired again yet.
        if exception[0] is None or self.mine() is not None:
            self.give_back()

    def __repr__(self):
        return f"<{type(self).__name__} at {id(self):#x}, {state_of(self)}>"

    def __deepcopy__(self, memo):
        no_deep_copy(self, memo)

    # Required by threading.Condition and by our own.

    def _is_owned(self):
        return self.mine() is not None

    def _release_save(self):
        cdef Hold hold = self.mine()
        if hold is None:
            raise LockBase.not_held(self)
        cdef Py_ssize_t depth = hold.depth
        del holds[self.key]
        self.c_obj.unlock()
        return depth

    def _acquire_restore(self, Py_ssize_t depth):
        self.obtain(True, None)
        (<Hold>holds[self.key]).depth = depth


cdef int level_of_caller() except -1:
    """The `stacklevel` of a warning for the line outside of this package that acquires a lock.

    Compiled functions have no frames, but those of a condition are partly written in Python, and the objects
    of `Array` and `Value` are multiprocessing's.
    """
    cdef int level = 1
    frame = sys._getframe()
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith(
            ("sharedmem.", "multiprocessing.sharedctypes")):
        frame = frame.f_back
        level += 1
    return level


cdef int drop_what_the_dead_left() except -1:
    """Drop the memory of locks that threads of this process held when they ended.

    Only the owner of an entry removes it, so these would stay until a lock at the same address is acquired.
    A search reads all entries, so the next one comes after as many new locks as there were entries.
    """
    global until_search
    cdef Hold hold
    cdef list dropped = []      # freed at the end, since that may run other code
    if until_search > 0:
        until_search -= 1
        return 0
    until_search = len(holds)
    for hold in list(holds.values()):
        with cython.critical_section(hold):
            if hold.memory is not None and is_over(hold.c_obj.owner()):
                dropped.append(hold.memory)
                hold.memory = None
    return 0


cdef bint is_over(owner_report seen) noexcept:
    """Whether the lock is free. Then no thread's list of held locks points to it any more."""
    return seen.what == owner_state.free or seen.what == owner_state.left


cdef object named_lock(object name, str kind):
    """The memory of the lock with that name."""
    with import_lock:
        from sharedmem._named_objects import named_memory     # not needed by most programs
    return named_memory(name, kind, robust_mutex_bytes, begin_lock)


def begin_lock(unsigned char[::1] memory not None):
    """Create a free lock in the first bytes of shared memory that is not used by others yet."""
    if memory.shape[0] < <Py_ssize_t>robust_mutex_bytes:
        raise ValueError(f"a lock needs {robust_mutex_bytes} bytes, not {memory.shape[0]}")
    robust_mutex.create(&memory[0])


cdef str state_of(LockBase lock):
    """Who holds the lock, for `repr`."""
    cdef owner_report seen
    cdef Hold hold = lock.mine()
    if hold is not None:
        return f"held by this thread, depth {hold.depth}"
    seen = lock.c_obj.owner()
    if seen.what == owner_state.unknown:
        return "not held by this thread"
    if seen.what == owner_state.free:
        return "not held"
    if seen.what == owner_state.left:
        return "left by a thread that has ended"
    with import_lock:
        from sharedmem._owners import owner_text    # not needed by most programs
    return f"held by {owner_text(seen.thread)}"
