"""Values of arrays whose memory a reader cannot use, such as an actor on another node.

They come through Ray's own store. An actor that holds an object is asked itself. A driver or a task cannot be
called: another task on its node opens the handles, and where that could not, the values are stored at once.
"""

from __future__ import annotations

import os
import pickle
import warnings
from typing import Any

import numpy as np
import ray
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
)

import sharedmem
from sharedmem._integrations.ray_hooks import manager
from sharedmem._transfers.probing import load_probe

#: The thread of an actor in which Ray aborts transports. In another one, "_ray_system", actors wait for
#: values themselves: two that ask each other would wait for ever.
_THREAD = "_ray_system_error"
_WAIT = 60.0  # seconds, as Ray waits for a transport
_WAIT_FOR_NODE = 30.0  # seconds


def values_of(arrays: list[Any]) -> list[tuple[Any, bool]]:
    """Arrays as what Ray's store takes, and whether they were writable, which that does not tell."""
    return [(each.view(np.ndarray), each.flags.writeable) for each in arrays]


def own_copy(value: Any, writeable: bool) -> Any:
    """A copy of values for the reader alone: in shared memory if there is room."""
    try:
        made = sharedmem.array(value)
    except (MemoryError, OSError, RuntimeError, TypeError, ValueError):
        made = value.copy(order="K")
    made.flags.writeable = writeable
    return made


# -- what runs elsewhere


def _values_in_holder(actor: Any, obj_id: str) -> list[tuple[Any, bool]]:
    store = manager().rdt_store
    if not store.has_object(obj_id):
        raise LookupError(f"object {obj_id} has been freed, since no reference to it was left")
    return values_of(store.get_object(obj_id))


def _values_of_handles(pickles: list[bytes]) -> list[tuple[Any, bool]]:
    return values_of([pickle.loads(each) for each in pickles])


def _reaches(probe: dict[str, Any]) -> bool:
    return load_probe(probe) is not None


def _task_on(node: str, function: Any) -> Any:
    where = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(function).options(num_cpus=0, scheduling_strategy=where, max_retries=0)


# -- asking


def ask(obj_id: str, metadata: Any, holder: Any) -> list[tuple[Any, bool]]:
    """The values of an object.

    Parameters
    ----------
    obj_id : str
        Ray's name of the object.
    metadata : ray_transport.Metadata
        The object's.
    holder : ray.actor.ActorHandle or None
        The actor that holds it; None: what Ray knows of the object in this process is asked.

    Returns
    -------
    list of tuple
        As `values_of` returns.

    Raises
    ------
    Exception
        Ray's, such as ActorDiedError: the holder has gone, and the values with it.
    """
    if metadata.values is not None:
        found: list[tuple[Any, bool]] = ray.get(metadata.values, timeout=_WAIT)
        return found
    if holder is None:
        known = manager().get_rdt_metadata(obj_id)
        holder = None if known is None else known.src_actor
    if isinstance(holder, ray.actor.ActorHandle):
        answer = holder.__ray_call__.options(concurrency_group=_THREAD).remote(_values_in_holder, obj_id)
    else:
        answer = _task_on(metadata.node, _values_of_handles).remote(metadata.pickles)
    found = ray.get(answer, timeout=_WAIT)
    return found


_known: tuple[Any, bool] | None = None  # worker and place that were tried, and whether its node reaches them


def _has_started_node() -> bool:
    """Whether this process has started its node, by ``ray.init()``: then the workers are its children."""
    node = ray._private.worker.global_worker.node
    return bool(getattr(node, "all_processes", {}).get("raylet"))


def node_reaches(probe: dict[str, Any] | None) -> bool:
    """Whether tasks on this node can use this process's memory. It is tried once, and takes a task's time."""
    global _known
    if probe is None:
        return False
    if _has_started_node():
        return True
    context = ray.get_runtime_context()
    key = os.getpid(), context.get_worker_id(), context.get_node_id(), probe["place"]
    if _known is not None and _known[0] == key:
        return _known[1]
    try:
        found = bool(ray.get(_task_on(context.get_node_id(), _reaches).remote(probe), timeout=_WAIT_FOR_NODE))
    except Exception:  # whatever it is: nobody can be asked
        found = False
    if not found:
        warnings.warn(
            "Ray's workers on this node cannot use the memory of this process: the values of its arrays are "
            "stored, too, for readers that cannot either",
            RuntimeWarning,
            stacklevel=2,
        )
    _known = key, found
    return found
