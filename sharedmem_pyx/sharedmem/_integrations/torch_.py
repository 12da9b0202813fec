"""torch: tensors and parameters whose storage lies in shared memory, and the queues of torch.multiprocessing.

By default torch moves the data of a tensor that it sends into a file, and the sender's tensor then uses that
file instead of the memory for which it was created. A tensor over shared memory travels by handle instead,
and both sides share it. All other tensors are left to torch, except those that workers of a DataLoader send
(`torch_batches`).
"""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from types import ModuleType
from typing import Any

from sharedmem._transfers.messages import dumps
from sharedmem._transfers.reducing import reduce_shared
from sharedmem.array import is_shared

#: What reduces tensors in private memory, or returns None and leaves them to torch; None: torch reduces all.
private: Callable[[Any], Any] | None = None


def rebuild(storage: Any, dtype: Any, place: tuple[Any, ...], requires_grad: bool, parameter: bool) -> Any:
    """Make a tensor over the array of a handle; called by pickles of tensors over shared memory.

    Parameters
    ----------
    storage : numpy.ndarray
        The bytes of its storage.
    dtype : torch.dtype
        Its type.
    place : tuple
        Offset, sizes and strides within the storage, in elements.
    requires_grad, parameter : bool
        As the sender's.

    Returns
    -------
    torch.Tensor or torch.nn.Parameter
        Over the same memory.
    """
    torch: Any = importlib.import_module("torch")
    memory = torch.from_numpy(storage).untyped_storage()
    tensor = torch.empty(0, dtype=dtype, device="cpu").set_(memory, *place)
    if parameter:
        return torch.nn.Parameter(tensor, requires_grad=requires_grad)
    return tensor.requires_grad_() if requires_grad else tensor


def _bytes_of(tensor: Any, torch: Any) -> Any:
    """The storage as an array of bytes if the tensor can travel by that; None: leave it to torch."""
    if tensor.device.type != "cpu" or tensor.layout is not torch.strided or tensor.is_quantized:
        return None
    if (
        tensor.is_conj()
        or tensor.is_neg()
        or (tensor.requires_grad and not tensor.is_leaf)
        or tensor.numel() == 0
    ):
        return None
    storage = tensor.untyped_storage()
    nothing = torch.empty(0, dtype=torch.uint8, device="cpu")
    memory = nothing.set_(storage, 0, (storage.nbytes(),), (1,)).numpy()
    return memory if is_shared(memory) else None


def _reducing(plain: Callable[[Any], Any], torch: Any) -> Callable[[Any], Any]:
    def reduce(tensor: Any) -> Any:
        kind = type(tensor)
        if kind is not torch.Tensor and kind is not torch.nn.Parameter:
            return plain(tensor)
        memory = _bytes_of(tensor, torch)
        if memory is None:
            reduced = None if private is None else private(tensor)
            return plain(tensor) if reduced is None else reduced
        place = (tensor.storage_offset(), tuple(tensor.size()), tensor.stride())
        return rebuild, (
            _Shared(memory),
            tensor.dtype,
            place,
            tensor.requires_grad,
            kind is torch.nn.Parameter,
        )

    return reduce


class _Shared:
    """Pickles as the handle of an array, even if the pickler has no entry for arrays."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __reduce__(self) -> Any:
        return reduce_shared(self.array)


def add_tensors(module: ModuleType) -> None:
    """Make multiprocessing send tensors over shared memory by handle."""
    torch: Any = importlib.import_module("torch")
    registered: dict[Any, Any] = ForkingPickler._extra_reducers  # type: ignore[attr-defined]
    for kind in (torch.Tensor, torch.nn.Parameter):
        if kind in registered:
            ForkingPickler.register(kind, _reducing(registered[kind], torch))


def hook_queues(module: ModuleType) -> None:
    """Make the queues of `torch.multiprocessing.queue` send arrays as those of multiprocessing do."""

    def send(self: Any, obj: Any) -> None:
        self.send_bytes(dumps(obj, pickle.HIGHEST_PROTOCOL))

    wrapper: Any = module.ConnectionWrapper
    wrapper.send = send
