"""Event: a flag that other processes wait for, without a lock that a death could leave locked."""
cimport cython
cimport numpy as cnp
from libc.stdint cimport uint32_t

from sharedmem._atomics_waiting cimport seconds_of, sleep_while
from sharedmem.libsharedmem.futex cimport wake

from sharedmem._arguments import read_arguments
from sharedmem._creation import zeros
from sharedmem._messages import by_value as _by_value, no_deep_copy
from sharedmem._startup import import_lock
from sharedmem.array import is_shared


cdef extern from "<sharedmem_pyx/atomics.hpp>" namespace "sharedmem_pyx::atomics" nogil:
    uint32_t load(const uint32_t*) noexcept
    uint32_t or_(uint32_t*, uint32_t) noexcept
    uint32_t compare_exchange(uint32_t*, uint32_t, uint32_t) noexcept


cdef enum:
    word_count = 2              # a number, on which waiting threads sleep, and a mark: this is an event
    mark = 0x656d7601
    everybody = 0x7fffffff


cnp.import_array()


@cython.final
cdef class Event:
    """Event(*, name=None)
--

    Flag in shared memory that processes and threads wait for.

    It is used like `multiprocessing.Event`, with two differences. It can be sent at any time and by any
    means, like an array: through a queue to a worker that already runs, or as the bytes of a pickle. And it
    contains no lock: a process may be killed in the middle of any method, and all others continue.

    Methods may be called by several threads and processes at once, and after a fork in the child.

    Parameters
    ----------
    name : str or None, optional
        All callers that give the same name get the same event, whether they are related or not: processes of
        one user, as for `sharedmem.create`. The name exists as long as a process has the event. None: a new
        event.

    Raises
    ------
    ValueError
        The name refers to something else, is empty or too long.
    TypeError
        The name is not a str.
    MemoryError, OSError, BuildError
        As `get_or_create`.
    """

    # The word counts the changes: the flag is set if the number is odd. A thread that waits at an even number
    # returns at any other one, so that it does not miss a `set` that is followed by `clear`.
    cdef object memory
    cdef uint32_t* word
    cdef object __weakref__

    def __cinit__(self, *args, **keywords):
        _memory = keywords.pop("_memory", None)
        name = read_arguments("Event", args, keywords, names=("name",)).get("name")
        if name is not None:
            with import_lock:
                from sharedmem._named_objects import named_memory     # not needed by most programs
            _memory = named_memory(name, "Event", 4 * word_count, begin).view("u4")
        if _memory is None:
            _memory = zeros(word_count, "u4")
            begin(_memory)
        elif not is_shared(_memory) or _memory.dtype != "u4" or _memory.shape != (word_count,) \
                or _memory[1] != mark:
            raise ValueError("there is no event in this memory")
        self.memory = _memory
        self.word = <uint32_t*>cnp.PyArray_DATA(_memory)

    def is_set(self):
        """Whether the flag is set.

        Returns
        -------
        bool
            True after `set`, until `clear`.
        """
        return load(self.word) % 2 == 1

    def set(self):
        """Set the flag and wake all waiting threads."""
        if or_(self.word, 1) % 2 == 0:
            wake(self.word, everybody)

    def clear(self):
        """Reset the flag; a thread that waits from now on waits for the next `set`."""
        cdef uint32_t count = load(self.word)
        cdef uint32_t before
        while count % 2 == 1:       # repeats only if another thread has cleared and set it meanwhile
            before = compare_exchange(self.word, count, count + 1)
            if before == count:
                return
            count = before

    def wait(self, timeout=None):
        """Sleep until the flag is set.

        Parameters
        ----------
        timeout : float or None, optional
            Seconds to wait at most; None: without limit.

        Returns
        -------
        bool
            True if the flag is set or was set meanwhile; False if the time expired.

        Raises
        ------
        TypeError, ValueError
            `timeout` is not a number, or is NaN.

        Notes
        -----
        Ctrl-C and other signals are handled while it waits.
        """
        cdef double seconds = seconds_of(timeout)
        cdef uint32_t count = load(self.word)
        return True if count % 2 == 1 else sleep_while(self.word, count, seconds)

    def __repr__(self):
        return f"<{type(self).__name__} at {id(self):#x} {'set' if self.is_set() else 'unset'}>"

    def __deepcopy__(self, memo):
        no_deep_copy(self, memo)

    def __reduce__(self):
        if _by_value.get():
            return _new_event, (self.is_set(),)
        return _open_event, (self.memory,)


def begin(memory):
    """Make an unset event of zeros."""
    memory.view("u4")[1] = mark


def _new_event(flag):
    event = Event()
    if flag:
        event.set()
    return event


def _open_event(memory):
    """The event that lies in `memory`."""
    return Event(_memory=memory)
