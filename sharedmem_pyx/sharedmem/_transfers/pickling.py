"""Which pickles hold an array until it is loaded, and which hold its data.

A pickle of a shared array is a handle. Transfers that deliver a message once (multiprocessing, and
loky and joblib as soon as they are imported) keep the memory of a handle until it is loaded, so that
the sender may drop the array, or end. No other pickle does: nobody can tell how often it is loaded.
Functions that write files pickle by value: see `sharedmem._transfers.saving`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.reduction import ForkingPickler
from types import ModuleType
from typing import Any

from sharedmem._messages import by_value, dumping_alone, holding
from sharedmem._startup.importing import when_imported


@contextmanager
def pickle_by_value() -> Iterator[None]:
    """Within this context pickles of shared arrays hold their data and load as plain ndarrays.

    For other hosts, and for what is saved by `pickle.dumps` or a `pickle.Pickler` of one's own; `pickle.dump`
    and other functions that write files do so anyway. A lock is pickled as a new one. It is a context
    variable: it reaches the code that runs in this context, not other threads, and so not the feeder
    thread in which a `multiprocessing.Queue` pickles what was put into it.

    Yields
    ------
    None
        Nothing is bound by ``as``.

    Examples
    --------
    >>> with sharedmem.pickle_by_value():
    ...     data = pickle.dumps({"a": a})
    """
    token = by_value.set(True)
    try:
        yield
    finally:
        by_value.reset(token)


def _hold(owner: Any) -> None:
    owner.dump = holding(owner.dump)


def _watch_pool(module: ModuleType) -> None:
    from sharedmem._transfers.pools import watch_pool  # which imports re, for programs without pools in vain

    watch_pool(module)


def _watch_executor(module: ModuleType) -> None:
    from sharedmem._transfers.pools import watch_executor

    watch_executor(module)


def install() -> None:
    """Make transfers that deliver once hold the arrays in their messages, and Pools report their errors."""
    _hold(ForkingPickler)
    ForkingPickler.dumps = dumping_alone(ForkingPickler)  # type: ignore[method-assign]
    when_imported("multiprocessing.pool", _watch_pool)
    when_imported("concurrent.futures.process", _watch_executor)
    when_imported("loky.backend.reduction", _hold)
    when_imported("joblib.externals.loky.backend.reduction", _hold)
    when_imported("joblib.pool", lambda pool: _hold(pool.CustomizablePickler))
