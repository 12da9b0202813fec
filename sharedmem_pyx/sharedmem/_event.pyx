"""Event: a flag that other processes wait for, with no lock inside that a death could leave held."""
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
    word_count = 2              # a number, on which others sleep, and what it is
    mark = 0x656d7601
    everybody = 0x7fffffff


cnp.import_array()


@cython.final
cdef class Event:
    """Event(*, name=None)
--

    Flag in shared memory that processes and threads wait for.

    It is used as `multiprocessing.Event` is, with two differences. It can be sent at any time and by any
    means, as arrays can: through a queue to a worker that already runs, or as the bytes of a pickle. And it
    has no lock inside: a process may be killed in the middle of any method, and all others go on.

    Methods may be called by several threads and processes at once, and after a fork in the child.

    Parameters
    ----------
    name : str or None, optional
        All who give the same name have the same event, whoever started them: processes of one user, as for
        `sharedmem.create`. The name lives as long as a process has the event. None: a new event.

    Raises
    ------
    ValueError
        The name stands for something else; or it is empty or too long.
    TypeError
        The name is no str.
    MemoryError, OSError, BuildError
        As `get_or_create`.
    """

    # The word counts the changes: the flag is set if the number is odd. Who waits at an even number returns
    # at any other one, so that nobody misses a `set` that is followed by `clear`.
    cdef object memory
    cdef uint32_t* word
    cdef object __weakref__

    def __cinit__(self, *args, **keywords):
        _memory = keywords.pop("_memory", None)
        name = read_arguments("Event", args, keywords, names=("name",)).get("name")
        if name is not None:
            with import_lock:
                from sharedmem._named_objects import named_memory     # which few programs need
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
        """Set the flag and wake all who wait for it."""
        if or_(self.word, 1) % 2 == 0:
            wake(self.word, everybody)

    def clear(self):
        """Reset the flag; whoever waits from now on waits for the next `set`."""
        cdef uint32_t count = load(self.word)
        cdef uint32_t before
        while count % 2 == 1:       # goes on only if somebody else has cleared and set it meanwhile
            before = compare_exchange(self.word, count, count + 1)
            if before == count:
                return
            count = before

    def wait(self, timeout=None):
        """Sleep until the flag is set.

        Parameters
        ----------
        timeout : float or None, optional
            Seconds to wait at most; None: as long as it takes.

        Returns
        -------
        bool
            True if the flag is set or was set meanwhile; False if the time was up.

        Raises
        ------
        TypeError, ValueError
            `timeout` is no number, or not a number (NaN).

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
