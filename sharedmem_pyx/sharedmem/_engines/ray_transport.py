"""The tensor transport of `sharedmem.ray`: Ray sends handles, and its store of tensors keeps the arrays.

The *holder* of an object is the process that stored it: its actor returned the object, or it called `put`.
Ray's store in that process keeps the arrays as long as there is a reference to the object anywhere. Therefore
handles need no lease, and a message that Ray repeats, or loads twice, does no harm. From the moment at which
a reader has loaded the handle it has its own reference to the memory.

A reader that cannot load a handle, for instance on another node, requests the values (`ray_values`).
"""

from __future__ import annotations

import functools
import pickle
import threading
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray
from ray.experimental.rdt import (
    CommunicatorMetadata,
    RDTManager,
    TensorTransportManager,
    TensorTransportMetadata,
    register_tensor_transport,
)
from ray.experimental.rdt.util import (
    transport_manager_info,
    transport_managers,
)

import sharedmem
from sharedmem._engines import ray_values
from sharedmem._integrations.ray_hooks import manager, this_actor
from sharedmem._messages import by_value, current_message
from sharedmem._startup import free_in_child
from sharedmem._transfers.probing import load_probe, make_probe
from sharedmem.array import SharedArray

NAME = "SHAREDMEM"
_MOST_REACHED = 1024  # probes that are remembered

_lock = threading.RLock()
free_in_child(_lock)


# -- what travels


def _loaded(state: dict[str, Any]) -> Metadata:
    """Called by pickles of metadata: registers the transport in the process that loads them."""
    install()
    return Metadata(**state)


@dataclass
class Metadata(TensorTransportMetadata):
    """What a reader needs of an object.

    Attributes
    ----------
    probe : dict or None
        Of the holder; None: it has no shared memory that others could use.
    pickles : list of bytes
        Each array as a handle without a lease; as its bytes if it has none.
    node : str
        The holder's node.

    Notes
    -----
    No reference of Ray's may be in it: Ray pickles it while it holds a lock that references need.
    """

    probe: dict[str, Any] | None = None
    pickles: list[bytes] = field(default_factory=list)
    node: str = ""

    def __reduce__(self) -> Any:
        return _loaded, (dict(self.__dict__),)


@dataclass
class Route(CommunicatorMetadata):
    """Which actor holds an object; None if it is a driver or a task, or if Ray does not say."""

    holder: Any = None


def _pickled(array: Any) -> bytes:
    """The handle of an array, without a lease, even if this is called while a message is pickled."""
    within, values = current_message.set(None), by_value.set(False)
    try:
        return pickle.dumps(array, pickle.HIGHEST_PROTOCOL)
    finally:
        by_value.reset(values)
        current_message.reset(within)


# -- the transport


class SharedTransport(TensorTransportManager):
    """Ray makes one in each process, which several of its threads call at the same time."""

    def __init__(self) -> None:
        self.held: set[str] = set()  # objects that this process holds
        self.reached: set[bytes] = set()  # probes of holders whose memory was tried
        self.warned = False

    def tensor_transport_backend(self) -> str:
        return NAME

    @staticmethod
    def is_one_sided() -> bool:
        return True

    @staticmethod
    def can_abort_transport() -> bool:
        return True  # there is nothing to abort; after False Ray would kill both actors

    def actor_has_tensor_transport(self, actor: Any) -> bool:
        return True

    def extract_tensor_transport_metadata(self, obj_id: str, rdt_object: list[Any]) -> Metadata:
        _write_values_otherwise()
        if this_actor() is None and not ray_values.node_reaches():
            raise RuntimeError(f"{ray_values.APART}; sharedmem.ray.put stores values in such a process")
        with _lock:
            self.held.add(obj_id)
        made = Metadata(
            tensor_meta=[(array.shape, array.dtype) for array in rdt_object],
            tensor_device="cpu",
            node=ray.get_runtime_context().get_node_id(),
        )
        try:
            made.probe = make_probe()
            made.pickles = [_pickled(array) for array in rdt_object]
        except (MemoryError, OSError):
            made.probe = None
        return made

    def get_communicator_metadata(self, src_actor: Any, dst_actor: Any, backend: str | None = None) -> Route:
        return Route(src_actor)

    def recv_multiple_tensors(
        self,
        obj_id: str,
        tensor_transport_metadata: Metadata,
        communicator_metadata: Route,
        target_buffers: list[Any] | None = None,
    ) -> list[Any]:
        if target_buffers:
            raise ValueError("shared arrays are used where they are, and cannot be received into buffers")
        refused: Exception | None = None
        try:
            if self._reaches(tensor_transport_metadata.probe):
                return [pickle.loads(each) for each in tensor_transport_metadata.pickles]
        except Exception as error:  # after any error: that memory cannot be used
            refused = error
        found = ray_values.ask(obj_id, tensor_transport_metadata, communicator_metadata.holder)
        if refused is not None:  # but the holder lives, since it has sent the values
            self._warn(refused)
        return [ray_values.own_copy(*each) for each in found]

    def send_multiple_tensors(
        self, tensors: list[Any], tensor_transport_metadata: Metadata, communicator_metadata: Route
    ) -> None:
        raise NotImplementedError("shared arrays are not sent: their readers load them by handle")

    def garbage_collect(self, obj_id: str, tensor_transport_meta: Metadata, tensors: list[Any]) -> None:
        with _lock:
            self.held.discard(obj_id)

    def abort_transport(self, obj_id: str, communicator_metadata: Route) -> None:
        pass

    def drop_all(self, store: Any) -> None:
        """Drop what this process holds for Ray, from Ray's store of tensors."""
        with _lock:
            held, self.held = self.held, set()
        for obj_id in held:
            while store.has_object(obj_id):
                store.pop_object(obj_id)

    def _reaches(self, probe: dict[str, Any] | None) -> bool:
        """Whether this process can use a holder's memory; raises where the places are equal and it cannot."""
        if probe is None or probe["place"] != sharedmem.place():
            return False
        known = probe["handle"] + probe["content"]
        if known not in self.reached:
            load_probe(probe)
            with _lock:
                if len(self.reached) >= _MOST_REACHED:
                    self.reached.clear()
                self.reached.add(known)
        return True

    def _warn(self, error: Exception) -> None:
        with _lock:
            first, self.warned = not self.warned, True
        if first:
            warnings.warn(
                "an array of another process in this place cannot be used here, and its values are copied: "
                f"{type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=2,
            )


# -- in each process that uses it


class _Reducer:
    """The entry of Ray's pickler for shared arrays once the transport has been used.

    Ray then sets an entry of its own. That one pickles arrays which no transport carries into bytes, and
    pickles these bytes again; this one passes the arrays' buffers to Ray's store.
    """

    def __init__(self, plain: Any) -> None:
        self.plain = plain

    def __call__(self, array: Any) -> Any:
        context = ray._private.worker.global_worker.get_serialization_context()
        if getattr(context._thread_local, "use_external_transport", False):
            return self.plain(array)
        return array.view(np.ndarray).__reduce_ex__(5)


def _write_values_otherwise() -> None:
    """Have Ray pickle shared arrays as it pickles ndarrays, wherever the transport is not requested."""
    entries = ray.cloudpickle.CloudPickler.dispatch
    entry = entries.get(SharedArray)
    if entry is not None and not isinstance(entry, _Reducer):
        entries[SharedArray] = _Reducer(entry)


def _drop_at_shutdown(plain: Any) -> Any:
    """Version of `RDTManager.shutdown` that drops our arrays; Ray keeps them until the process ends."""

    @functools.wraps(plain)
    def shutdown(self: Any) -> None:
        plain(self)
        transport = transport_managers.get(NAME)
        if transport is not None and self._rdt_store is not None:
            transport.drop_all(self._rdt_store)

    shutdown.is_ours = True  # type: ignore[attr-defined]
    return shutdown


def install() -> None:
    """Register the transport in this process. It can be repeated."""
    with _lock:
        if NAME not in transport_manager_info:
            register_tensor_transport(NAME, ["cpu"], SharedTransport, SharedArray)
            # Otherwise Ray would not register the transport in actors that this process has created before.
            manager().actor_id_to_transports_registered.clear()
        if not hasattr(RDTManager.shutdown, "is_ours"):
            RDTManager.shutdown = _drop_at_shutdown(RDTManager.shutdown)


# Ray makes this object at its first use, without a lock. In an actor the thread that receives arrays and the
# one that waits for them could each make one, and then the latter would wait for ever. An actor imports this
# module before anything is sent to it, so there is no other thread yet.
manager()
