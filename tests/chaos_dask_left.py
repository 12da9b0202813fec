"""What keeps an array in a process of a Dask cluster that should have none, for `tests.chaos_dask` to print.

NumPy's arrays are not known to the garbage collector, but whatever refers to them is. So all objects that it
knows, and the frames that run, are asked for what they refer to.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np

import sharedmem

LEAST = 100_000  # bytes of an array that is worth a line
DEPTH = 8  # of a chain of what refers to what
SHORT = 150  # characters of an object's text


def running() -> list[Any]:
    """The frames of all threads but this one."""
    found = []
    for top in sys._current_frames().values():
        frame = top if top is not sys._getframe() else None
        while frame is not None:
            found.append(frame)
            frame = frame.f_back
    return found


def shared_in(obj: Any) -> Iterator[np.ndarray]:
    """Large arrays in shared memory to which an object refers, by itself or by tuples and dicts.

    Those tuples and dicts that have nothing the garbage collector would know are not known to it either.
    """
    found = gc.get_referents(obj)
    while found:
        each = found.pop()
        if isinstance(each, memoryview):
            with contextlib.suppress(ValueError):  # it was released
                found.append(each.obj)
        elif isinstance(each, (tuple, dict)) and not gc.is_tracked(each):
            found += gc.get_referents(each)
        elif isinstance(each, np.ndarray) and sharedmem.is_shared(each) and each.nbytes >= LEAST:
            yield each


def short(obj: Any) -> str:
    if isinstance(obj, dict):
        text = f"dict with {list(obj)}"
    else:
        try:
            text = repr(obj)
        except Exception as error:
            text = f"no repr: {error!r}"
    return f"{type(obj).__qualname__} {text}"[:SHORT]


def is_ours(obj: Any) -> bool:
    """Whether it is a frame or generator of this module, or an iterator that it uses."""
    if isinstance(obj, types.GeneratorType):
        return obj.gi_code.co_filename == __file__
    if isinstance(obj, types.FrameType):
        return obj.f_code.co_filename == __file__
    return isinstance(obj, type(iter([])))


def chain(obj: Any, ours: set[int]) -> list[str]:
    """An object, what refers to it, what refers to that, and so on: always the first of those that do."""
    said = [short(obj)]
    seen = {id(obj), *ours}
    while len(said) < DEPTH:
        above = [each for each in gc.get_referrers(obj) if id(each) not in seen and not is_ours(each)]
        if not above:
            break
        obj = above[0]
        seen |= {id(above), *map(id, above)}
        said.append(short(obj) + (f" (and {len(above) - 1} others)" if above[1:] else ""))
    return said


def holders(dask_worker: Any = None, dask_scheduler: Any = None) -> list[str]:
    """A line for each reference to a large array in shared memory, and for each task of a worker."""
    gc.collect()
    said = []
    known = gc.get_objects()
    every = known + running()
    for obj in every:
        if obj is known or obj is every or is_ours(obj):
            continue
        for array in shared_in(obj):
            about = f"{array.dtype}{array.shape} at {array.ctypes.data:#x}"
            said.append(" <- ".join([about, *chain(obj, {id(known), id(every), id(array)})]))
    state = getattr(dask_worker, "state", None)
    if state is not None:
        for key, task in state.tasks.items():
            said.append(f"task {key} {task.state}, {task.nbytes} bytes, story {state.story(key)}")
        said += [f"data {key}" for key in dask_worker.data]
    return said
