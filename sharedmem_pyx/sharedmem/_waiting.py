"""Event and Condition: waiting for other processes, with no lock inside that a death could leave held."""

from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Any, TypeVar

from sharedmem._atomics import add, compare_exchange, load, notify, or_, store, wait
from sharedmem._creation import zeros
from sharedmem._messages import by_value
from sharedmem.array import is_shared
from sharedmem.lock import Lock, RLock, sleep_without

_T = TypeVar("_T")

# The words of an event or condition in shared memory: a number that changes, on which others sleep; what it
# is; and, for a condition, see `Condition._wake`.
_WORDS = 4
_EVENT = 0x656D7601
_CONDITION = 0x636D7601


def _new_words(kind: int) -> Any:
    words = zeros(_WORDS, "u4")
    words[1] = kind
    return words


def _check_words(memory: Any, kind: int, what: str) -> Any:
    """`memory`, if it has words of this kind."""
    if not is_shared(memory) or memory.dtype != "u4" or memory.shape != (_WORDS,) or memory[1] != kind:
        raise ValueError(f"there is no {what} in this memory")
    return memory


class Event:
    """Flag in shared memory that processes and threads wait for.

    It is used as `multiprocessing.Event` is, with two differences. It can be sent at any time and by any
    means, as arrays can: through a queue to a worker that already runs, or as the bytes of a pickle. And it
    has no lock inside: a process may be killed in the middle of any method, and all others go on.

    Methods may be called by several threads and processes at once, and after a fork in the child.
    """

    # The first word counts the changes: the flag is set if the number is odd. Who waits at an even number
    # returns at any other one, so that nobody misses a `set` that is followed by `clear`.
    __slots__ = ("__weakref__", "_memory")

    def __init__(self) -> None:
        self._memory = _new_words(_EVENT)

    def is_set(self) -> bool:
        """Whether the flag is set.

        Returns
        -------
        bool
            True after `set`, until `clear`.
        """
        return bool(load(self._memory, 0) % 2)

    def set(self) -> None:
        """Set the flag and wake all who wait for it."""
        if or_(self._memory, 0, 1) % 2 == 0:
            notify(self._memory, 0)

    def clear(self) -> None:
        """Reset the flag; whoever waits from now on waits for the next `set`."""
        count = load(self._memory, 0)
        while count % 2 == 1:  # goes on only if somebody else has cleared and set it meanwhile
            before = compare_exchange(self._memory, 0, count, (count + 1) % 2**32)
            if before == count:
                return
            count = before

    def wait(self, timeout: float | None = None) -> bool:
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
        TypeError
            `timeout` is no number.

        Notes
        -----
        Ctrl-C and other signals are handled while it waits.
        """
        count = load(self._memory, 0)
        return count % 2 == 1 or wait(self._memory, 0, count, timeout)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {id(self):#x} {'set' if self.is_set() else 'unset'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if by_value.get():
            return _new_event, (self.is_set(),)
        return _open_event, (self._memory,)


def _new_event(flag: bool) -> Event:
    event = Event()
    if flag:
        event.set()
    return event


def _open_event(memory: Any) -> Event:
    event = Event.__new__(Event)
    event._memory = _check_words(memory, _EVENT, "event")
    return event


class Condition:
    """Lock in shared memory with which processes and threads wait for what others change under it.

    It is used as `multiprocessing.Condition` is, and can be sent at any time and by any means, as arrays can.
    A process that is killed while it waits leaves nothing behind; one that is killed while it holds the
    lock leaves it to the next, with a `RuntimeWarning`, as the lock itself does.

    A wait may end without a notification of its own: a second after another one was woken, since that
    one may have been killed before it could do what it was woken for. So look again at what was waited for,
    as `wait_for` does.

    Methods may be called by several threads and processes at once.

    Parameters
    ----------
    lock : RLock or Lock, optional
        One of `sharedmem`'s, which several conditions may share; by default a new `RLock`.
    """

    __slots__ = ("__weakref__", "_lock", "_memory")

    def __init__(self, lock: RLock | Lock | None = None) -> None:
        if lock is None:
            lock = RLock()
        elif not isinstance(lock, RLock | Lock):
            raise TypeError(
                "a condition needs a sharedmem.RLock or sharedmem.Lock, which can be sent like arrays, "
                f"not {type(lock).__module__}.{type(lock).__name__}"
            )
        self._lock = lock
        self._memory = _new_words(_CONDITION)

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take the lock.

        Parameters
        ----------
        block : bool, optional
            Whether to wait while another thread or process holds the lock.
        timeout : float or None, optional
            Seconds to wait at most; None: as long as it takes.

        Returns
        -------
        bool
            Whether the caller holds the lock now.
        """
        return self._lock.acquire(block, timeout)

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A wait that was interrupted while it took the lock back has not got it.
        if exc_value is None or self._lock._is_owned():
            self._lock.release()

    def _must_be_held(self, what: str) -> None:
        if not self._lock._is_owned():
            raise AssertionError(f"{what} a condition needs its lock to be held by this thread")

    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock, sleep until a notification, and take the lock back.

        Parameters
        ----------
        timeout : float or None, optional
            Seconds to sleep at most; None: as long as it takes. To take the lock back may take longer.

        Returns
        -------
        bool
            Whether there was a notification, to this or another one who waits; False: the time was up.

        Raises
        ------
        AssertionError
            The calling thread does not hold the lock.
        TypeError
            `timeout` is no number.

        Notes
        -----
        Ctrl-C and other signals are handled while it waits. If a handler raises, the lock is taken back
        first; a second exception while that has to wait for the lock is raised without it.
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
            Seconds to wait at most; None: as long as it takes.

        Returns
        -------
        object
            What `predicate` returned last, which is false if the time was up.

        Raises
        ------
        AssertionError
            The calling thread does not hold the lock.
        """
        end = None if timeout is None else monotonic() + timeout
        while not (result := predicate()):
            left = None if end is None else end - monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return result

    def notify(self, n: int = 1) -> None:
        """Wake some of those who wait.

        Parameters
        ----------
        n : int, optional
            How many are woken, if so many wait.

        Raises
        ------
        AssertionError
            The calling thread does not hold the lock.
        ValueError
            `n` is negative.
        """
        self._must_be_held("to notify those who wait for")
        if n < 0:
            raise ValueError(f"the number of those to wake is {n}")
        if n > 0:
            self._wake(n)

    def _wake(self, n: int | None) -> None:
        # The kernel wakes those who sleep. Others have released the lock and are about to sleep, or look for
        # signals; they may be meant if fewer slept than are to be woken. The third word tells everybody who
        # began to wait before the first word had this number that a notification was theirs, too.
        number = (add(self._memory, 0, 1) + 1) % 2**32
        woken = notify(self._memory, 0, n)
        if n is None or woken < n:
            store(self._memory, 2, number)
            add(self._memory, 0, 1)  # so that nobody falls asleep who has not seen the third word
            notify(self._memory, 0)

    def notify_all(self) -> None:
        """Wake all who wait.

        Raises
        ------
        AssertionError
            The calling thread does not hold the lock.
        """
        self._must_be_held("to notify those who wait for")
        self._wake(None)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {id(self):#x} of {self._lock!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if by_value.get():
            return Condition, (self._lock,)
        return _open_condition, (self._lock, self._memory)


def _open_condition(lock: RLock | Lock, memory: Any) -> Condition:
    condition = Condition.__new__(Condition)
    condition._lock = lock
    condition._memory = _check_words(memory, _CONDITION, "condition")
    return condition
