"""Latest: the newest of a sequence of arrays, without copies and without waiting for readers."""

import atexit
import os
import sys
import weakref
from time import monotonic
from typing import Any, ClassVar, NoReturn

import numpy as np

from sharedmem import _frames
from sharedmem._atomics import load
from sharedmem._atomics_waiting import end_of_wait, wait
from sharedmem._copying import asshared, copy
from sharedmem._file_memory import find_place
from sharedmem._lock_base import begin_lock
from sharedmem._messages import by_value, no_deep_copy
from sharedmem._startup import at_fork, import_lock
from sharedmem.arena import collect
from sharedmem.array import SharedArray
from sharedmem.errors import StaleHandleError
from sharedmem.lock import RLock, _open_lock, call_with

# Offset of the word on which readers sleep, see latest.hpp.
_BELL = 16

# Seconds between two checks of the number: a writer may be killed after it has stored that.
_SLICE = 0.1


def _start_of(pid: int) -> int:
    """When a living process started, in the kernel's own units; 0 if it does not exist or has ended."""
    if sys.platform == "win32":
        with import_lock:
            from sharedmem._windows import start_of
        return start_of(pid)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0  # any other error, such as too many open files, tells nothing about that process
    return 0 if fields[0] in b"ZX" else int(fields[19])


_LOCK = 64  # bytes of the lock, in front of the words of one that has a name


def _find(name: str) -> tuple[RLock, Any]:
    """Lock and words of the Latest with that name."""
    with import_lock:
        from sharedmem._named_objects import named_memory  # not needed by most programs

    memory = named_memory(name, "Latest", _LOCK + _frames.size, _begin)
    return _open_lock(memory[:_LOCK]), memory[_LOCK:]


def _begin(memory: Any) -> None:
    begin_lock(memory)
    _frames.begin_words(memory[_LOCK:])


class Latest:
    """The newest array: one process puts, any number of processes get, and nothing is copied.

    A reader gets the memory that was put, and can keep it as long as it wants; the writer does not wait for
    readers, but continues in other memory. Readers skip arrays that were replaced before they looked. A
    `Latest` can be sent at any time and by any means, like an array.

    The newest array is kept until a newer one is put, or until no process has the `Latest` any more. When the
    process that put it ends, for whatever reason, the array is kept until an allocation would be refused
    otherwise, and for at least a minute. A reader or the writer may be killed at any moment: no other process
    hangs, and another process may put the next array.

    Methods may be called by several threads at once, and by any number of processes; only one process at a
    time may put.

    Parameters
    ----------
    name : str or None, optional
        All callers that give the same name get the same one, whether they are related or not: processes of
        one user, as for `sharedmem.create`. The name exists as long as a process has the `Latest`. None: a
        new one.

    Raises
    ------
    TypeError, ValueError
        The name is not a str, is empty or too long, or refers to something else.
    MemoryError, OSError, BuildError
        As `get_or_create`.
    """

    __slots__ = ("__weakref__", "_bell", "_lock", "_memory")

    # The objects of this process, by the address of their words: one for each address.
    _known: ClassVar["weakref.WeakValueDictionary[int, Latest]"] = weakref.WeakValueDictionary()

    _lock: RLock
    _memory: Any
    _bell: Any

    def __new__(cls, *, name: str | None = None) -> "Latest":
        if name is None:
            return cls._of(RLock(), _frames.new_words())
        return cls._opened(*_find(name))

    @classmethod
    def _of(cls, lock: RLock, memory: Any) -> "Latest":
        latest = object.__new__(cls)
        latest._set(lock, memory)
        return latest

    @classmethod
    def _opened(cls, lock: RLock, memory: Any) -> "Latest":
        """The object of this process that has these words, if there is one."""
        known = Latest._known.get(_frames.check_words(memory).ctypes.data)
        if isinstance(known, cls):
            return known
        _left.pop(memory.ctypes.data, None)  # this process has it again
        return cls._of(lock, memory)

    def _set(self, lock: RLock, memory: Any) -> None:
        self._lock = lock
        self._memory = memory
        self._bell = memory[_BELL : _BELL + 4].view("u4")
        self._known[memory.ctypes.data] = self
        weakref.finalize(self, _leave, lock, memory)
        _settle()

    def put(self, a: Any) -> int:
        """Make an array the newest one.

        From then on it belongs to the readers: write the next one into other memory. The memory of earlier
        arrays is recycled once their readers have dropped them.

        Parameters
        ----------
        a : array_like
            A shared array, or a view of one, is put as it is. Anything else, including an array in a file, is
            copied to the arena first.

        Returns
        -------
        int
            Its number: 1 for the first array, then increasing by one, even if another process continues.

        Raises
        ------
        RuntimeError
            Another process that is alive, and has the `Latest`, has put before; the message has its pid.
        MemoryError
            There is not enough memory for a copy, or no lease is left.
        OSError
            It cannot be determined whether the process that put before is still alive, because there are too
            many open files.
        TypeError, ValueError
            The array has no elements, or a dtype that cannot be described in a few hundred bytes.
        """
        a = asshared(a)
        if find_place(a) is not None:  # it lies in a file, and a frame is a handle of the arena
            a = copy(a)
        if _left:
            _settle()  # before our lock is acquired: as no thread holds two locks, there is no deadlock
        return call_with(self._lock, self._put, a)

    def _put(self, a: Any) -> int:
        self._become_writer()
        return _frames.put(self._memory, a)

    def _become_writer(self) -> None:
        me, other = _this_process(), _frames.writer(self._memory)
        if other != me:
            if other[1] != 0 and other[1] == _start_of(other[0]):
                raise RuntimeError(
                    f"process {other[0]} puts arrays into this Latest; another process may do so once "
                    "that one has ended, or has dropped its last reference to the Latest"
                )
            _frames.set_writer(self._memory, *me)

    def get(self, *, after: int | None = None, timeout: float | None = None) -> tuple[SharedArray, int]:
        """Return the newest array, as soon as there is one.

        Parameters
        ----------
        after : int or None, optional
            The number of the array that the caller has: wait for a newer one. None: return any.
        timeout : float or None, optional
            Seconds to wait at most; None: without limit.

        Returns
        -------
        array : SharedArray
            The memory that was put, not a copy.
        number : int
            The array's number, for `after`.

        Raises
        ------
        TimeoutError
            There was no such array until the timeout.
        TypeError
            `after` is not an integer, or `timeout` not a number.
        ValueError
            `after` is negative, or `timeout` is NaN.

        Notes
        -----
        Ctrl-C and other signals are handled while it waits.
        """
        known = 0 if after is None else _number(after)
        end = end_of_wait(timeout)
        while True:
            bell = load(self._bell, 0)  # before the number, whose changes it announces
            number = _frames.newest(self._memory)
            if number > known:
                try:
                    a = _frames.get(self._memory, number)
                except StaleHandleError:  # its writer has ended, and no process has the array
                    known = number
                    continue
                if a is not None:
                    return a, number
                continue  # it was replaced meanwhile
            left = min(end - monotonic(), _SLICE)
            if not wait(self._bell, 0, bell, left) and monotonic() >= end:
                text = "no array was put"
                if timeout is not None and timeout > 0:
                    text += f" within {timeout:g} s"
                raise TimeoutError(f"{text} after the one with number {known}" if known else text)

    def __repr__(self) -> str:
        return f"<Latest at {id(self):#x}, number {_frames.newest(self._memory)}>"

    def __deepcopy__(self, memo: object) -> NoReturn:
        no_deep_copy(self, memo)

    def __reduce__(self) -> tuple[Any, ...]:
        if by_value.get():
            return Latest, ()
        return _open, (self._lock, self._memory)


def _number(after: Any) -> int:
    if not isinstance(after, int | np.integer) or isinstance(after, bool):
        raise TypeError(f"the number of an array is an int, not {type(after).__name__}")
    if after < 0:
        raise ValueError(f"the number of an array is not negative, but `after` is {after}")
    return int(after)


# Pid and start time of this process; in a forked child at first its parent's.
_known_process = (0, 0)


def _this_process() -> tuple[int, int]:
    global _known_process
    pid = os.getpid()
    if _known_process[0] != pid:
        _known_process = pid, _start_of(pid)
    return _known_process


# Those that this process has put into and dropped while others had them: lock and words by their address.
_left: dict[int, tuple[RLock, Any]] = {}


def _leave(lock: RLock, memory: Any) -> None:
    """This process does not have the Latest any more."""
    if _frames.is_held_elsewhere(memory):
        collect()  # perhaps only dead processes have it
    if call_with(lock, _leave_now, memory):
        _left[memory.ctypes.data] = lock, memory


def _leave_now(memory: Any) -> bool:
    """Whether this process must check later; otherwise the newest array is settled. The lock is held."""
    if Latest._known.get(memory.ctypes.data) is not None:
        return False  # another thread has received it in a message meanwhile
    pid, _ = _frames.writer(memory)
    others = _frames.is_held_elsewhere(memory)
    if not others:
        _frames.forget(memory)
    if pid == os.getpid():
        _frames.set_writer(memory, 0, 0)
    return others and pid == os.getpid()


def _settle() -> None:
    """Give the last arrays back that this process has put into objects that no process has any more."""
    for address, (lock, memory) in list(_left.items()):
        if call_with(lock, _is_settled, memory):
            _left.pop(address, None)


def _is_settled(memory: Any) -> bool:
    if not _frames.is_held_elsewhere(memory):
        _frames.forget(memory)
        return True
    return _frames.writer(memory)[0] != 0  # another process has put meanwhile: the newest array is its own


atexit.register(_settle)
at_fork(after_in_child=_left.clear)


def _open(lock: RLock, memory: Any) -> Latest:
    return Latest._opened(lock, memory)
