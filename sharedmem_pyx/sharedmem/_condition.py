"""Condition: waiting for changes that other processes make under a lock; no process's death can break it."""

from collections.abc import Callable
from operator import index
from time import monotonic
from typing import Any, NoReturn, TypeVar

from sharedmem._atomics import add, store
from sharedmem._atomics_waiting import end_of_wait, notify
from sharedmem._condition_wait import WithLock, sleep_without
from sharedmem._creation import zeros
from sharedmem._lock_base import begin_lock
from sharedmem._messages import by_value, no_deep_copy
from sharedmem._startup import import_lock
from sharedmem.array import is_shared
from sharedmem.lock import Lock, RLock, _open_lock

_T = TypeVar("_T")

# The words of a condition in shared memory: a number that changes, on which waiting threads sleep; a mark
# that says that this is a condition; and a third one, see `Condition._wake`.
_WORDS = 4
_CONDITION = 0x636D7601
_LOCK = 64  # bytes of the lock, in front of the words of one that has a name


def _new_words() -> Any:
    words = zeros(_WORDS, "u4")
    words[1] = _CONDITION
    return words


def _check_words(memory: Any) -> Any:
    """Return `memory` if it contains the words of a condition."""
    if not is_shared(memory) or memory.dtype != "u4" or memory.shape != (_WORDS,) or memory[1] != _CONDITION:
        raise ValueError("there is no condition in this memory")
    return memory


def _find(name: str) -> tuple[RLock, Any]:
    """Lock and words of the condition with that name."""
    with import_lock:
        from sharedmem._named_objects import named_memory  # not needed by most programs

    memory = named_memory(name, "Condition", _LOCK + 4 * _WORDS, _begin)
    return _open_lock(memory[:_LOCK]), _check_words(memory[_LOCK:].view("u4"))


def _begin(memory: Any) -> None:
    begin_lock(memory)
    memory[_LOCK:].view("u4")[1] = _CONDITION


class Condition(WithLock):
    """Lock in shared memory with which processes and threads wait for changes that others make under it.

    It is used like `multiprocessing.Condition`, and can be sent at any time and by any means, like an array.
    A process that is killed while it waits leaves nothing behind. If one is killed while it holds the
    lock, the next one gets the lock, with a `RuntimeWarning`, as for the lock itself: `RLock` says how to see
    each of these warnings.

    A wait may end without a notification of its own: one second after another waiter was woken, since that
    one may have been killed before it could act. So check again what was waited for, as `wait_for` does.

    Methods may be called by several threads and processes at once.

    Parameters
    ----------
    lock : RLock or Lock, optional
        One of `sharedmem`'s, which several conditions may share; by default a new `RLock`.
    name : str or None, optional
        All callers that give the same name get the same condition, which includes an `RLock`, whether they
        are related or not: processes of one user, as for `sharedmem.create`. The name exists as long as a
        process has the condition.

    Raises
    ------
    TypeError
        `lock` is not one of `sharedmem`'s locks; or the name is not a str.
    ValueError
        Both are given; or the name refers to something else, is empty or too long.
    MemoryError, OSError, BuildError
        As `get_or_create`, for a name.
    """

    __slots__ = ("__weakref__", "_memory")

    def __init__(self, lock: RLock | Lock | None = None, *, name: str | None = None) -> None:
        if name is not None:
            if lock is not None:
                raise ValueError("a condition with a name has its own lock: pass either a name or a lock")
            self._lock, self._memory = _find(name)
            return
        if lock is None:
            lock = RLock()
        elif not isinstance(lock, RLock | Lock):
            raise TypeError(
                "a condition needs a sharedmem.RLock or sharedmem.Lock, which can be sent like arrays, "
                f"not {type(lock).__module__}.{type(lock).__name__}"
            )
        self._lock = lock
        self._memory = _new_words()

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Acquire the lock.

        Parameters
        ----------
        block : bool, optional
            Whether to wait while another thread or process holds the lock.
        timeout : float or None, optional
            Seconds to wait at most; None: without limit.

        Returns
        -------
        bool
            Whether the caller holds the lock now.
        """
        return self._lock.acquire(block, timeout)

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()

    def _must_be_held(self, what: str) -> None:
        if not self._lock._is_owned():
            raise AssertionError(f"{what} a condition needs its lock to be held by this thread")

    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock, sleep until a notification, and acquire the lock again.

        Parameters
        ----------
        timeout : float or None, optional
            Seconds to sleep at most; None: without limit. Acquiring the lock again may take longer.

        Returns
        -------
        bool
            Whether there was a notification, to this thread or another waiting one; False: the time expired.

        Raises
        ------
        AssertionError
            The calling thread does not hold the lock.
        TypeError, ValueError
            `timeout` is not a number, or is NaN.

        Notes
        -----
        Ctrl-C and other signals are handled while it waits. If a handler raises, the lock is acquired again
        first. If a second exception arrives while that waits for the lock, it is raised without the lock.
        """
        self._must_be_held("to wait for")
        return sleep_without(self._lock, self._memory, timeout)

    def wait_for(self, predicate: Callable[[], _T], timeout: float | None = None) -> _T:
        """Wait until a predicate is true.

        Parameters
        ----------
        predicate : callable
            Called without arguments while the lock is held.
        timeout : float or None, optional
            Seconds to wait at most; None: without limit.

        Returns
        -------
        object
            The last result of `predicate`, which is false if the time expired.

        Raises
        ------
        AssertionError
            The calling thread does not hold the lock.
        TypeError, ValueError
            `timeout` is not a number, or is NaN.
        """
        end = end_of_wait(timeout)
        while not (result := predicate()):
            left = end - monotonic()
            if left <= 0:
                break
            self.wait(left)
        return result

    def notify(self, n: int = 1) -> None:
        """Wake some of the waiting threads.

        Parameters
        ----------
        n : int, optional
            The most threads to wake.

        Raises
        ------
        AssertionError
            The calling thread does not hold the lock.
        TypeError, ValueError
            `n` is not an integer, or is negative.
        """
        self._must_be_held("to notify those who wait for")
        number = index(n)
        if number < 0:
            raise ValueError(f"n, the number of threads to wake, must not be negative: {n}")
        if number > 0:
            self._wake(number)

    def _wake(self, n: int | None) -> None:
        # The kernel wakes threads that sleep. Others have released the lock and are about to sleep, or are
        # handling signals; they must be notified if fewer slept than are to be woken. The third word tells
        # every thread that began to wait before the first word had this number that it was notified, too.
        number = (add(self._memory, 0, 1) + 1) % 2**32
        woken = notify(self._memory, 0, n)
        if n is None or woken < n:
            store(self._memory, 2, number)
            add(self._memory, 0, 1)  # so that a thread that has not seen the third word does not fall asleep
            notify(self._memory, 0)

    def notify_all(self) -> None:
        """Wake all waiting threads.

        Raises
        ------
        AssertionError
            The calling thread does not hold the lock.
        """
        self._must_be_held("to notify those who wait for")
        self._wake(None)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {id(self):#x} of {self._lock!r}>"

    def __deepcopy__(self, memo: object) -> NoReturn:
        no_deep_copy(self, memo)

    def __reduce__(self) -> tuple[Any, ...]:
        if by_value.get():
            return Condition, (self._lock,)
        return _open_condition, (self._lock, self._memory)


def _open_condition(lock: RLock | Lock, memory: Any) -> Condition:
    condition = Condition.__new__(Condition)
    condition._lock = lock
    condition._memory = _check_words(memory)
    return condition
