"""Values of arrays whose memory a reader cannot use, such as an actor on another node.

They come through Ray's own store. If an actor holds the object, it is called and returns them. A driver or a
task cannot be called; instead a task on the same node opens the handles. Where such a task could not open
them, `sharedmem.ray.put` does not send handles in the first place.
"""

from __future__ import annotations

import os
import pickle
from typing import Any

import numpy as np
import ray
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
)

import sharedmem
from sharedmem._integrations.ray_hooks import manager, this_actor
from sharedmem._transfers.probing import load_probe, make_probe

#: The thread of an actor in which Ray aborts transports. The thread "_ray_system" cannot be used: actors wait
#: for values in it, so two actors that request values from each other would wait for ever.
_THREAD = "_ray_system_error"
_WAIT = 60.0  # seconds, as Ray waits for a transport
_WAIT_FOR_NODE = 30.0  # seconds


def values_of(arrays: list[Any]) -> list[tuple[Any, bool]]:
    """Each array as an ndarray for Ray's store, and whether it was writable, which that does not keep."""
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
        The actor that holds it; None: look it up in Ray's metadata of the object in this process.

    Returns
    -------
    list of tuple
        As `values_of` returns.

    Raises
    ------
    Exception
        Ray's, such as ActorDiedError: the holder has ended, and the values are lost.
    """
    if holder is None:
        known = manager().get_rdt_metadata(obj_id)
        holder = None if known is None else known.src_actor
    if isinstance(holder, ray.actor.ActorHandle):
        answer = holder.__ray_call__.options(concurrency_group=_THREAD).remote(_values_in_holder, obj_id)
    else:
        answer = _task_on(metadata.node, _values_of_handles).remote(metadata.pickles)
    found: list[tuple[Any, bool]] = ray.get(answer, timeout=_WAIT)
    return found


#: Worker and place for which `node_reaches` was found out, and its result.
_known: tuple[Any, bool] | None = None


def _has_started_node() -> bool:
    """Whether this process has started its node, by ``ray.init()``: then the workers are its children."""
    node = ray._private.worker.global_worker.node
    return bool(getattr(node, "all_processes", {}).get("raylet"))


#: The reason that is given where `node_reaches` is false.
APART = "Ray's workers on this node cannot use the memory of this process"


def node_reaches() -> bool:
    """Whether tasks on this node can use this process's memory: found out once, by running a task."""
    global _known
    try:
        probe = make_probe()
    except (MemoryError, OSError):
        return False
    if _has_started_node():
        return True
    context = ray.get_runtime_context()
    key = os.getpid(), context.get_worker_id(), context.get_node_id(), probe["place"]
    if _known is not None and _known[0] == key:
        return _known[1]
    try:
        found = bool(ray.get(_task_on(context.get_node_id(), _reaches).remote(probe), timeout=_WAIT_FOR_NODE))
    except Exception:  # after any error: no task could be run
        found = False
    _known = key, found
    return found


def why_values() -> str | None:
    """Why this process cannot store an object by a transport; None: it can."""
    from ray.util.client import ray as client

    if client.is_connected():
        return "this process is a client of ray://, whose objects are in the cluster"
    if ray.is_initialized():
        actor = this_actor()
        if actor is None:
            return None if node_reaches() else APART
        if not getattr(actor, "_ray_enable_tensor_transport", True):
            return "the class of this actor needs @ray.remote(enable_tensor_transport=True)"
    return None
