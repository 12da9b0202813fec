"""Which pickles keep the memory of an array until they are loaded, and which contain its data.

A pickle of a shared array is a handle. Transfers that deliver a message once (multiprocessing, and those of
`sharedmem._integrations` as soon as they are imported) keep the memory of a handle until it is loaded, so
that the sender may drop the array, or end. No other pickle does: it may be loaded any number of times.
Functions that write files pickle by value: see `sharedmem._transfers.saving`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import reduction
from types import ModuleType
from typing import Any

from sharedmem._messages import by_value, holding
from sharedmem._startup import import_lock
from sharedmem._transfers.messages import transferring, write_message


@contextmanager
def pickle_by_value() -> Iterator[None]:
    """Within this context pickles of shared arrays contain their data and load as plain ndarrays.

    For messages to other hosts, and for data that is saved by `pickle.dumps` or the program's own
    `pickle.Pickler`; `pickle.dump` and other functions that write files do so anyway. A lock is pickled as a
    new one. The setting is a context variable: it applies to the code that runs in this context, not to other
    threads, and so not to the feeder thread in which a `multiprocessing.Queue` pickles its messages.

    Yields
    ------
    None
        Nothing is bound by ``as``.

    Examples
    --------
    >>> with sharedmem.pickle_by_value():
    ...     data = pickle.dumps({"a": a})
    """
    before, token = by_value.get(), None
    try:
        token = by_value.set(True)
        yield
    finally:
        if token is None:  # it was set, and then a handler of a signal (Ctrl-C) raised
            by_value.set(before)
        else:
            by_value.reset(token)


def hook_forking_pickler(module: ModuleType) -> None:
    """Make transfers that use `multiprocessing.reduction`, or a copy of it, keep the arrays in their
    messages alive.

    Parameters
    ----------
    module : module
        It has a class ForkingPickler, and a function `dump`, by which processes are spawned.
    """
    owner: Any = module
    pickler = owner.ForkingPickler
    plain_dump = pickler.dump
    pickler.dump = holding(plain_dump)
    pickler.dumps = transferring(pickler, plain_dump)

    def dump(obj: Any, file: Any, protocol: Any = None, *args: Any, **keywords: Any) -> None:
        """Replacement for pickle.dump() using ForkingPickler."""
        write_message(pickler(file, protocol, *args, **keywords), obj, protocol)

    owner.dump = dump


def install() -> None:
    """Make messages of multiprocessing keep their arrays, and apply the environment's `transport` setting."""
    hook_forking_pickler(reduction)
    # A variable that exists is later replaced by one store, for threads that read it by getenv(3) meanwhile.
    text = os.environ.setdefault("SHAREDMEM_TRANSPORT", "")
    if text:
        with import_lock:
            from sharedmem._transfers.settings import apply  # not needed by most programs

        apply(text)
