"""joblib's backend ``sharedmem``: loky's, with inputs and results in shared memory.

It is a subclass of joblib's `LokyBackend`, which does everything else: workers, batches, nesting, errors.
Only the two queues of loky's executor get reducers of this library.

* A task's large plain arrays are copied into shared memory once per call of `Parallel`, whatever the number
  of tasks that get them, and arrive read-only. (Joblib would write a file that its workers map.) If there is
  no room for an array, joblib writes its file.
* Smaller ones, and the plain arrays of results, are carried: the sender copies them into shared memory for
  one message, and the receiver copies them out. They arrive private and writable, like pickled ones.
* Arrays that lie in shared memory travel by handle.

Tested with joblib 1.4.2, 1.5.3 and 1.6.0.
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from joblib._parallel_backends import LokyBackend
from joblib.externals.loky.process_executor import _CallItem

from sharedmem._copying import copy
from sharedmem._integrations.joblib_ import warn_once
from sharedmem._integrations.loky_ import Messages
from sharedmem._messages import Message, by_value, current_message
from sharedmem._transfers.messages import hook
from sharedmem._transfers.reducing import (
    Reducer,
    count,
    most_in_flight,
    never_zero_copy,
    reduce_kept,
    reducer,
)
from sharedmem.array import SharedArray, is_shared

#: Data of one message, in bytes, from which on copying it into shared memory and out of it is worth the time.
_LEAST = 65536
#: The protocol of loky's pickler.
_PROTOCOL = 5
#: Set in the environment of the workers of this backend. Loky has one executor at a time, and replaces it if
#: a call needs another environment. So calls with another backend do not get an executor with these reducers.
_VARIABLE = "SHAREDMEM_JOBLIB"
#: Errors of a copy into shared memory that was refused. TypeError: a dtype that cannot be shared.
_REFUSALS = (MemoryError, OSError, RuntimeError, TypeError, ValueError)

_Reduced = tuple[Any, ...]


class ByArray:
    """A dict whose keys are arrays, compared by identity. An entry is dropped as soon as its array is."""

    def __init__(self) -> None:
        self._values: dict[int, tuple[weakref.ref[Any], Any]] = {}

    def get(self, array: Any) -> Any:
        """The value of an array, or None."""
        known = self._values.get(id(array))
        return known[1] if known is not None and known[0]() is array else None

    def set(self, array: Any, value: Any) -> None:
        """Give an array a value."""
        key = id(array)
        # A strong reference to this object would form a cycle, which lives until the collector finds it.
        owner = weakref.ref(self)

        def drop(dead: Any) -> None:
            values = owner()
            known = values._values.get(key) if values is not None else None
            if values is not None and known is not None and known[0] is dead:
                del values._values[key]

        self._values[key] = weakref.ref(array, drop), value

    def clear(self) -> None:
        """Drop all values."""
        self._values.clear()

    def __bool__(self) -> bool:
        return bool(self._values)


class Task:
    """A task with the copies that were made for its call of `Parallel`.

    The copies are stored here because one thread pickles the tasks of all calls. The executor keeps this
    object until the result has arrived. The worker gets `function` alone.
    """

    def __init__(self, function: Callable[[], Any], copies: ByArray) -> None:
        self.function = function
        self.copies = copies
        #: The copies to which its message refers.
        self.named: list[Any] = []
        #: The leases of its message. They end with this object, because what killed workers had read but not
        #: loaded yet cannot be determined.
        self.leases: Message | None = None

    def __reduce__(self) -> _Reduced:
        # For loky's own messages: those of an executor that `adopt` did not know.
        return operator.getitem, ((self.function,), 0)


def _new_reducer() -> Reducer:
    return reducer(_PROTOCOL, min_bytes=_LEAST, zero_copy_from=never_zero_copy, limit=most_in_flight())


# -- inputs

#: In a worker: the arrays that `load_input` returned.
_inputs = ByArray()


def load_input(load: Callable[..., Any], args: tuple[Any, ...], private: bool) -> Any:
    """Load the array that a task gets instead of a large plain one.

    Parameters
    ----------
    load : callable
        What loads the array in shared memory.
    args : tuple
        Its arguments.
    private : bool
        Whether the task gets a copy of its own.

    Returns
    -------
    numpy.ndarray
        Private and writable, or shared with all tasks that got the same array.
    """
    array = load(*args)
    if private:
        return np.array(array)
    _inputs.set(array, True)
    return array


def _is_input(array: Any) -> bool:
    """Whether the array is one that `load_input` returned, or a view of one."""
    if _inputs:
        while isinstance(array, np.ndarray):
            if _inputs.get(array):
                return True
            array = array.base
    return False


def _copied(array: Any, writable: bool) -> Any:
    """A copy in shared memory, in the order in which joblib would write it to a file; None: refused."""
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    try:
        made = np.asarray(copy(array, "F" if fortran else "C"))
    except _REFUSALS:
        return None
    made.flags.writeable = writable
    return made


class _TaskMessage:
    """Reduces the arrays in the message of one task."""

    def __init__(self, task: Task, theirs: Any, otherwise: Callable[[Any], _Reduced]) -> None:
        self.task = task
        self.most = theirs._max_nbytes  # larger arrays are copied once for all tasks of the call
        self.mode = theirs._mmap_mode
        self.otherwise = otherwise

    def reduce(self, array: Any) -> _Reduced:
        if self.most is None or array.nbytes <= self.most or array.dtype.hasobject or is_shared(array):
            return self.otherwise(array)
        made = self.task.copies.get(array)
        if made is None:
            made = None if _is_in_file(array) else _copied(array, writable=self.mode != "r")
            if made is None:
                return self.otherwise(array)
            self.task.copies.set(array, made)
        # Keeps the copy for this task also if the array, which may exist only while it is pickled, is
        # dropped.
        self.task.named.append(made)
        load, args = reduce_kept(made)
        return load_input, (load, args, self.mode in (None, "c"))


def _is_in_file(array: Any) -> bool:
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False


class TaskMessages(Messages):
    """Writes the messages of the queue through which the workers get their tasks."""

    def write(self, pickler: Any, obj: Any) -> None:
        """Write a message; see the base class.

        Parameters
        ----------
        pickler : _LokyPickler
            New.
        obj : object
            What is sent.
        """
        table = pickler.dispatch_table
        theirs = table[np.ndarray]
        used = _new_reducer()
        hook(pickler, used)
        task = getattr(obj, "fn", None)
        if type(task) is not Task:  # loky's sentinel, or submitted to its executor without this backend
            pickler.dump(obj)
        else:
            if not by_value.get():
                table[np.ndarray] = table[SharedArray] = _TaskMessage(task, theirs, table[np.ndarray]).reduce
            obj.fn = task.function  # of an item that loky has made for this message
            task.leases = Message()
            before = current_message.set(task.leases)
            try:
                pickler.dump(obj)
            finally:
                current_message.reset(before)
        count(used)


# -- results


class ResultMessages(Messages):
    """Writes the messages of the queue through which results return."""

    def write(self, pickler: Any, obj: Any) -> None:
        """Write a message; see the base class.

        Parameters
        ----------
        pickler : _LokyPickler
            New.
        obj : object
            What is sent.
        """
        table = pickler.dispatch_table
        used = _new_reducer()
        hook(pickler, used)
        otherwise = table[np.ndarray]

        def reduce(array: Any) -> Any:
            # A task that returns its input returns a copy, since the memory of the input belongs to the call.
            return otherwise(np.array(array) if _is_input(array) else array)

        table[np.ndarray] = reduce
        pickler.dump(obj)
        count(used)


# -- the backend


def adopt(executor: Any) -> None:
    """Make the queues of an executor write their messages by this module.

    Parameters
    ----------
    executor : MemmappingExecutor
        One that was adopted before, or that has not been given a task yet.

    Raises
    ------
    AttributeError, KeyError
        The version of joblib differs from those that this module supports. The executor is unchanged.
    """
    tasks = executor._call_queue._reducers
    results = executor._result_queue._reducers
    theirs = tasks[np.ndarray]
    for owner, attribute in (
        (theirs, "_max_nbytes"),
        (theirs, "_mmap_mode"),
        (_CallItem(0, None, (), {}), "fn"),
    ):
        getattr(owner, attribute)
    results[np.ndarray]
    tasks.setdefault(Messages, TaskMessages())
    results.setdefault(Messages, ResultMessages())


class Backend(LokyBackend):  # type: ignore[misc,unused-ignore]
    """What ``joblib.parallel_config(backend="sharedmem")`` uses; its options are those of ``"loky"``."""

    _copies: ByArray | None = None  # those of the current call

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        """Get an executor, or raise `FallbackToBackend` for one job, as the base class does.

        Parameters
        ----------
        n_jobs : int
            As for the base class.
        parallel : joblib.Parallel
            The object whose calls the executor will run.
        **options : object
            For the executor.

        Returns
        -------
        int
            Number of workers.
        """
        number: int = super().configure(n_jobs, parallel, **options)
        try:
            adopt(self._workers)
        except (AttributeError, KeyError, TypeError) as error:
            warn_once(error)
        return number

    def _prepare_worker_env(self, n_jobs: int) -> dict[str, str]:
        return {**super()._prepare_worker_env(n_jobs), _VARIABLE: "1"}

    def start_call(self) -> None:
        """Begin a call of `Parallel`, with copies of its own."""
        super().start_call()
        self._copies = ByArray()

    def stop_call(self) -> None:
        """End a call, whatever its outcome. Workers that still have an input keep its memory."""
        super().stop_call()
        if self._copies is not None:
            self._copies.clear()
            self._copies = None

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], Any] | None = None) -> Any:
        """Give a task to the executor.

        Parameters
        ----------
        func : callable
            The task.
        callback : callable, optional
            Called with the future as soon as it is done.

        Returns
        -------
        concurrent.futures.Future
            Of the result.
        """
        return _submit(self, func if self._copies is None else Task(func, self._copies), callback)

    apply_async = submit  # its name before joblib 1.5


_submit: Callable[..., Any] = LokyBackend.__dict__.get("submit") or LokyBackend.__dict__["apply_async"]
for _method in ("configure", "start_call", "stop_call", "_prepare_worker_env"):
    getattr(LokyBackend, _method)
