"""Batches that workers of torch's DataLoader create in shared memory.

torch stacks the samples of a batch in a file in /dev/shm and sends its descriptor or its name. Here the
samples are stacked in an arena, and a handle is sent. Everything else that a worker sends, such as labels and
the tensors of the program's own `collate_fn`, is copied into an arena when it is pickled, where torch would
copy it into a file. `sharedmem.torch` has the functions that users call.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable
from multiprocessing import process
from multiprocessing.reduction import ForkingPickler
from types import ModuleType
from typing import Any

from sharedmem._creation import empty
from sharedmem._integrations import torch_
from sharedmem._messages import by_value
from sharedmem._startup import when_imported
from sharedmem._transfers.reducing import reducer
from sharedmem._transfers.tensors import compact, is_plain, restore_tensor

_Collate = Callable[..., Any]

# A key of the configuration that travels with each Process object, by every start method: it switches this on
# in the child process.
_KEY = "sharedmem.torch"
_MODULE = "torch.utils.data._utils.collate"

_on = False
_told = False


# -- stacking


def _tell_once(what: str) -> None:
    global _told
    if not _told:
        _told = True
        warnings.warn(f"batches travel as torch sends them: {what}", RuntimeWarning, stacklevel=3)


def _new_tensor(torch: Any, size: tuple[int, ...], dtype: Any) -> Any:
    """A tensor in shared memory, not filled; None: there is no room."""
    try:
        memory = empty(math.prod(size) * dtype.itemsize, "u1")
    except (MemoryError, OSError) as error:
        _tell_once(str(error))
        return None
    return torch.from_numpy(memory).view(dtype).view(size)


def _can_stack(torch: Any, batch: Any) -> bool:
    """Whether all are dense tensors of one class and dtype on the CPU, without gradients."""
    first = batch[0]
    return (
        all(type(each) is type(first) and not each.requires_grad for each in batch)
        and all(each.dtype is first.dtype for each in batch)
        and first.device.type == "cpu"
        and first.layout is torch.strided
        and not (first.is_quantized or first.is_nested)
        and first.numel() > 0
    )


def _stack(batch: Any, *, collate_fn_map: Any = None) -> Any:
    """The result of `torch.stack`, created in shared memory."""
    torch: Any = importlib.import_module("torch")
    if _can_stack(torch, batch):
        out = _new_tensor(torch, (len(batch), *batch[0].size()), batch[0].dtype)
        if out is not None:
            # The class of the samples decides the class of the result, as with torch's function.
            return torch.stack(batch, 0, out=out)
    module: Any = importlib.import_module(_MODULE)
    return module.collate_tensor_fn(batch, collate_fn_map=collate_fn_map)


def _stack_in_worker(batch: Any, *, collate_fn_map: Any = None) -> Any:
    """`_stack` in a worker of a DataLoader; elsewhere batches are not sent, and torch's function is used."""
    torch: Any = importlib.import_module("torch")
    if torch.utils.data.get_worker_info() is not None:
        return _stack(batch, collate_fn_map=collate_fn_map)
    module: Any = importlib.import_module(_MODULE)
    return module.collate_tensor_fn(batch, collate_fn_map=collate_fn_map)


def _then_moved(collate_fn: _Collate) -> _Collate:
    """A version of torch's function for a batch of numbers, whose tensor is in shared memory."""

    def collate_numbers(batch: Any, *, collate_fn_map: Any = None) -> Any:
        torch: Any = importlib.import_module("torch")
        made = collate_fn(batch, collate_fn_map=collate_fn_map)
        if type(made) is not torch.Tensor or made.device.type != "cpu":
            return made
        out = _new_tensor(torch, tuple(made.size()), made.dtype)
        return made if out is None else out.copy_(made)

    return collate_numbers


def collate_in_arena(batch: Any) -> Any:
    """See `sharedmem.torch.collate`.

    Parameters
    ----------
    batch : sequence
        The samples.

    Returns
    -------
    object
        As of `torch.utils.data.default_collate`.
    """
    module: Any = importlib.import_module(_MODULE)
    try:
        numbers = (module.collate_float_fn, module.collate_int_fn, module.collate_numpy_scalar_fn)
        stacks = (module.collate_tensor_fn, _stack_in_worker)
        functions = dict(module.default_collate_fn_map)
        collate = module.collate
    except AttributeError as error:
        _tell_once(f"sharedmem does not know this version of torch: {error}")
        return importlib.import_module("torch.utils.data").default_collate(batch)
    for kind, function in functions.items():
        if function in stacks:
            functions[kind] = _stack
        elif function in numbers:
            functions[kind] = _then_moved(function)
    return collate(batch, collate_fn_map=functions)


# -- sending


class _Carried:
    """Pickles as the handle of a copy in shared memory; with its bytes if there is no room."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __reduce_ex__(self, protocol: Any) -> Any:
        reduced = reducer(protocol).in_place_of_bytes(self.array)
        return self.array.__reduce_ex__(protocol) if reduced is None else reduced


def _reduce_private(tensor: Any) -> Any:
    """How a worker pickles a tensor in private memory; None: as torch does.

    A tensor that torch has moved into its own shared memory is left to torch, because it is meant to be
    shared. So is one that another process than a worker sends, because torch shares it with the receiver.
    """
    torch: Any = importlib.import_module("torch")
    if (
        torch.utils.data.get_worker_info() is None
        or (tensor.requires_grad and not tensor.is_leaf)
        or not is_plain(torch, tensor)
        or tensor.is_shared()
        or by_value.get()
    ):
        return None
    data, strides = compact(tensor, torch)
    how = tensor.dtype, tuple(tensor.size()), strides
    return restore_tensor, (_Carried(data), *how, tensor.requires_grad, type(tensor) is torch.nn.Parameter)


# -- switching it on and off


class _Setting:
    """A part of a child's configuration: loading it switches this module on there."""

    def __reduce__(self) -> Any:
        return take_over, ()


def take_over() -> _Setting:
    """Switch this module on, because it was on in the parent process when that started this one.

    torch may not have been imported yet.
    """
    switch(True)
    return _Setting()


def _change(module: ModuleType) -> None:
    """Make `torch.utils.data._utils.collate` stack by this library if it is switched on."""
    functions: dict[Any, Any] = module.__dict__["default_collate_fn_map"]
    before, after = module.__dict__["collate_tensor_fn"], _stack_in_worker
    if not _on:
        before, after = after, before
    for kind, function in functions.items():
        if function is before:
            functions[kind] = after


def _change_or_warn(module: ModuleType) -> None:
    try:
        _change(module)
    except KeyError as error:
        _tell_once(f"sharedmem does not know this version of torch: it has no {error}")


def switch(on: bool) -> None:
    """Switch this module on or off in this process, and in processes that it starts from now on.

    Parameters
    ----------
    on : bool
        Which.
    """
    global _on
    _on = on
    torch_.private = _reduce_private if on else None
    config: dict[str, Any] = process.current_process()._config  # type: ignore[attr-defined]
    if on:
        config[_KEY] = _Setting()
    else:
        config.pop(_KEY, None)
    when_imported(_MODULE, _change_or_warn)


def missing_hooks() -> str | None:
    """The first thing that is needed and this version of torch lacks; None if it has everything."""
    torch: Any = importlib.import_module("torch")
    data: Any = importlib.import_module("torch.utils.data")
    importlib.import_module("torch.multiprocessing")
    registered: dict[Any, Any] = ForkingPickler._extra_reducers  # type: ignore[attr-defined]
    if not hasattr(data, "get_worker_info"):
        return "torch.utils.data.get_worker_info"
    module: Any = importlib.import_module(_MODULE)
    for name in ("collate_tensor_fn", "default_collate_fn_map"):
        if not hasattr(module, name):
            return f"{_MODULE}.{name}"
    if torch.Tensor not in registered:
        return "the reducer of tensors of torch.multiprocessing"
    return None
