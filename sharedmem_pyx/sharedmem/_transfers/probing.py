"""Probes: they find out whether the process at the other end of a connection can use this one's memory.

Equal places (`sharedmem.place`) mean that the system allows it in general. It may still fail because of a
filter of system calls, an arena with the most processes that it can have, or a process that has attached the
most arenas that it can. So each end first sends a *probe*: a handle of 64 bytes that it holds. The other end
loads it, compares its contents with those that the sender states, and answers whether they are equal.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import sharedmem
from sharedmem._handles import _load
from sharedmem._messages import by_value, current_message
from sharedmem._startup import free_in_child

_BYTES = 64

_lock = threading.Lock()
_known: tuple[str, int, bytes, Any] | None = None  # place and pid for which it was made; handle, array
free_in_child(_lock)


def _handle_of(array: Any) -> bytes:
    """A handle without a lease, even if this is called while a message is pickled."""
    within, values = current_message.set(None), by_value.set(False)
    try:
        handle: bytes = array.__reduce_ex__(4)[1][0]
        return handle
    finally:
        by_value.reset(values)
        current_message.reset(within)


def make_probe() -> dict[str, Any]:
    """The probe that this process sends first.

    Returns
    -------
    dict
        Of a str and bytes, for `load_probe` in another process. It can be loaded any number of times, as long
        as this process lives.

    Raises
    ------
    OSError, MemoryError
        This process has no shared memory.
    """
    global _known
    place = sharedmem.place()
    with _lock:
        if _known is None or _known[:2] != (place, os.getpid()):
            array = sharedmem.array(memoryview(os.urandom(_BYTES)))
            _known = place, os.getpid(), _handle_of(array), array
        return {"place": place, "handle": _known[2], "content": _known[3].tobytes()}


def load_probe(probe: Any) -> Any:
    """The array of another process's probe.

    Parameters
    ----------
    probe : dict
        What `make_probe` returned there.

    Returns
    -------
    SharedArray or None
        As long as it is kept, the other process's arena stays attached. None: this process is in another
        place.

    Raises
    ------
    Exception
        The places are equal, and yet it cannot be loaded; or it has other contents.
    """
    if probe["place"] != sharedmem.place():
        return None
    array = _load(probe["handle"])
    if array.tobytes() != probe["content"]:
        raise ValueError(
            "the memory at the other end of a connection does not contain what was written to it"
        )
    return array
