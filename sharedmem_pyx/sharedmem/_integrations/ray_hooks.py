"""Access to the parts of Ray that tensor transports need, and a check whether this version has them."""

from __future__ import annotations

import functools
import inspect
from typing import Any

#: Methods of a transport that this library implements. A version of Ray that requires others is not
#: supported.
METHODS = frozenset(
    {
        "abort_transport",
        "actor_has_tensor_transport",
        "can_abort_transport",
        "extract_tensor_transport_metadata",
        "garbage_collect",
        "get_communicator_metadata",
        "is_one_sided",
        "recv_multiple_tensors",
        "send_multiple_tensors",
        "tensor_transport_backend",
    }
)


def _parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


@functools.cache
def missing_hooks() -> str | None:
    """The first thing that the transport needs and this version of Ray lacks; None if it has everything."""
    import ray
    from ray._private.serialization import SerializationContext
    from ray._private.worker import Worker

    try:
        import ray.experimental.rdt
        from ray.experimental.rdt.rdt_manager import RDTManager, RDTMeta
        from ray.experimental.rdt.rdt_store import RDTStore
        from ray.experimental.rdt.util import transport_manager_info  # noqa: F401
    except ImportError as error:
        return str(error)
    rdt = ray.experimental.rdt
    unknown = set(rdt.TensorTransportManager.__abstractmethods__) - METHODS
    if unknown:
        return f"a TensorTransportManager has to have {', '.join(sorted(unknown))}"
    for function, names in (
        (
            rdt.register_tensor_transport,
            ["transport_name", "devices", "transport_manager_class", "data_type"],
        ),
        (
            rdt.TensorTransportManager.recv_multiple_tensors,
            ["self", "obj_id", "tensor_transport_metadata", "communicator_metadata", "target_buffers"],
        ),
    ):
        if _parameters(function) != names:
            return f"{function.__qualname__} has the parameters {', '.join(_parameters(function))}"
    if "_tensor_transport" not in _parameters(ray.put):
        return "ray.put has no _tensor_transport"
    for owner, names in (
        (RDTManager(), ["actor_id_to_transports_registered"]),
        (RDTManager, ["get_rdt_metadata", "is_managed_object", "rdt_store", "shutdown"]),
        (RDTMeta, ["src_actor"]),
        (RDTStore, ["has_object", "get_object", "pop_object"]),
        (Worker, ["rdt_manager", "get_serialization_context"]),
        (SerializationContext, ["serialize_rdt_objects"]),
    ):
        for name in names:
            if not hasattr(owner, name):
                return f"{getattr(owner, '__name__', owner)} has no {name}"
    return None


def manager() -> Any:
    """Ray's manager of the objects that transports carry, in this process."""
    from ray._private.worker import global_worker

    return global_worker.rdt_manager


def is_held_by_transport(ref: Any) -> bool:
    """Whether a new reference refers to an object that a transport carries."""
    return bool(manager().is_managed_object(ref.hex()))


def this_actor() -> Any:
    """The handle of the actor that runs here; None in drivers and tasks."""
    import ray

    try:
        return ray.get_runtime_context().current_actor
    except RuntimeError:
        return None
