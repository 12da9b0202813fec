"""The ways to have several processes work on one array."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.sharedctypes import RawArray
from typing import Any

import numpy as np

import sharedmem
from sharedmem._cli.demo.memory import array_folder
from sharedmem._cli.demo.source import Source, nbytes


class NoRoomError(MemoryError):
    """A way cannot take part here; the message says why."""


@dataclass(frozen=True)
class Way:
    """How workers get at the array.

    Attributes
    ----------
    name : str
        What the table calls it.
    make : callable
        ``make(source)`` returns an array for the source's elements, and the memory that workers
        must inherit when they start (None: they need none).
    sends : bool
        Whether each part is sent to a worker (else it finds it in what it inherited).
    returns : bool
        Whether the worked-on part is sent back.
    """

    name: str
    make: Callable[[Source], tuple[np.ndarray, Any]]
    sends: bool
    returns: bool


def make_private(source: Source) -> tuple[np.ndarray, None]:
    """An ordinary array."""
    return np.empty(source.shape, source.dtype, source.order), None


def _make_raw_array(source: Source) -> tuple[np.ndarray, Any]:
    size = nbytes(source)
    if array_folder(size) is None:
        raise NoRoomError("no room in /dev/shm or the folder for temporary files")
    raw = RawArray("B", size)  # what multiprocessing.Array(..., lock=False) returns
    return np.frombuffer(raw, source.dtype).reshape(source.shape, order=source.order), raw


def _make_shared(source: Source) -> tuple[np.ndarray, None]:
    return sharedmem.empty(source.shape, source.dtype, source.order), None


WAYS = (
    Way("pickled copies", make_private, sends=True, returns=True),
    Way("multiprocessing.Array", _make_raw_array, sends=False, returns=False),
    Way("sharedmem", _make_shared, sends=True, returns=False),
)
