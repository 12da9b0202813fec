"""How tensors of torch are pickled as arrays, which leave their data out of a pickle.

torch writes the bytes of a tensor's storage into the pickle. Here a tensor on the CPU is pickled as an array
of bytes over its memory instead. Tensors that an array cannot describe are left to torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from sharedmem.array import is_shared


def is_plain(torch: ModuleType, tensor: Any) -> bool:
    """Whether a tensor consists of numbers in memory and of nothing else.

    Parameters
    ----------
    torch : module
        torch.
    tensor : torch.Tensor
        Of any kind.

    Returns
    -------
    bool
        True: its bytes, type, shape and strides describe it completely.
    """
    return bool(
        tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not (tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
        and tensor.numel() > 0
        and not tensor.__dict__
        and not tensor._backward_hooks
    )


def _as_bytes(tensor: Any, elements: int, torch: ModuleType) -> np.ndarray[Any, Any]:
    """The bytes of so many elements, from the first one on; the same memory."""
    flat = tensor.detach().as_strided((elements,), (1,))
    array: np.ndarray[Any, Any] = flat.view(torch.uint8).numpy()
    return array


def compact(tensor: Any, torch: ModuleType) -> tuple[np.ndarray[Any, Any], tuple[int, ...]]:
    """The bytes of a plain tensor.

    Parameters
    ----------
    tensor : torch.Tensor
        One for which `is_plain` is true.
    torch : module
        torch.

    Returns
    -------
    numpy.ndarray of uint8
        From the first element to the last: the tensor's own memory, or that of a copy where other data lies
        between its elements in private memory.
    tuple of int
        The strides there, in elements.
    """
    span = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    if span > tensor.numel() and not is_shared(_as_bytes(tensor, 1, torch)):
        tensor = tensor.detach().contiguous()
        span = tensor.numel()
    return _as_bytes(tensor, span, torch), tensor.stride()


def restore_tensor(
    data: np.ndarray[Any, Any],
    dtype: Any,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *of_parameter: bool,
) -> Any:
    """A tensor over an array of bytes.

    Parameters
    ----------
    data : numpy.ndarray
        Its bytes, from the first element on.
    dtype : torch.dtype
        Of the elements.
    shape, strides : tuple of int
        In elements, as torch has them.
    *of_parameter : bool
        Whether it needs a gradient, and whether it is a Parameter.

    Returns
    -------
    torch.Tensor or torch.nn.Parameter
        The same memory.
    """
    torch = importlib.import_module("torch")
    needs_gradient, is_parameter = of_parameter
    tensor = torch.from_numpy(data).view(dtype).as_strided(shape, strides)
    if is_parameter:
        return torch.nn.Parameter(tensor, needs_gradient)
    return tensor.requires_grad_() if needs_gradient else tensor


def reducers(torch: ModuleType) -> dict[type, Callable[[Any], Any]]:
    """The classes of torch with a function that pickles each.

    Parameters
    ----------
    torch : module
        It may not have been imported completely, by another thread.

    Returns
    -------
    dict
        Entries for the table of a pickler.
    """

    def reduce_tensor(tensor: Any) -> Any:
        if not is_plain(torch, tensor):
            return tensor.__reduce_ex__(5)
        data, strides = compact(tensor, torch)
        how = tensor.dtype, tuple(tensor.shape), strides
        parameter = tensor.requires_grad, type(tensor) is torch.nn.Parameter
        return restore_tensor, (data, *how, *parameter)

    try:
        return dict.fromkeys((torch.Tensor, torch.nn.Parameter), reduce_tensor)
    except AttributeError:
        return {}
