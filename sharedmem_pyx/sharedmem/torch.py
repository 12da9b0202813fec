"""Batches of torch's DataLoader in shared memory, without descriptors and without files in /dev/shm.

A worker of a `torch.utils.data.DataLoader` sends each batch in a file of its own. Here it makes the batch in
shared memory that is used again and again, and sends a handle of a hundred bytes. Batches are what they
always were: ordinary tensors, which belong to whoever receives them.

Either all DataLoaders of a program have that, or one::

    sharedmem.torch.install()
    DataLoader(dataset, batch_size=256, num_workers=4, collate_fn=sharedmem.torch.collate)

Tensors over shared arrays are sent by handle by all of `torch.multiprocessing`, with neither of the two.
Tested with torch 2.13.0. Where a version of torch does not have what this module needs, there is one
RuntimeWarning, and batches travel as torch sends them.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from typing import Any

from sharedmem._integrations import torch_batches

__all__ = ["collate", "install", "uninstall"]


def _need_torch() -> None:
    try:
        importlib.import_module("torch")
        importlib.import_module("torch.utils.data")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(
            "sharedmem.torch needs torch, which is not installed; pip install 'numpy-sharedmem[torch]'",
            name="torch",
        ) from error


def collate(batch: Sequence[Any]) -> Any:
    """Batch of samples in shared memory: the `collate_fn` of a DataLoader.

    It does what `torch.utils.data.default_collate` does, and copies as often: samples are stacked right where
    the batch is to be. Types that a program has added to torch's ``default_collate_fn_map`` are known.

    Parameters
    ----------
    batch : sequence
        The samples: tensors, arrays, numbers, text, and dicts, tuples and lists of them.

    Returns
    -------
    torch.Tensor or collection of them
        As `torch.utils.data.default_collate` returns. Tensors on the CPU are in shared memory, which goes
        when the last tensor over it does, in whatever process.

    Raises
    ------
    ImportError
        torch is not installed.
    RuntimeError
        The samples differ in size, or are sparse.
    TypeError
        A sample is of a type that torch's function does not know either.

    See Also
    --------
    install : The same for all DataLoaders, and for what a ``collate_fn`` of one's own returns.

    Notes
    -----
    Left to torch are samples that need a gradient, are quantized or on another device, and samples of several
    types. If there is no room in shared memory, the batch is made by torch, with one
    RuntimeWarning.

    It may be called anywhere, not only by workers, by several threads at once.
    """
    _need_torch()
    return torch_batches.collate_in_arena(batch)


def install() -> None:
    """Have all DataLoaders send their batches through shared memory, from now on.

    That holds for DataLoaders of this process, and of processes that it starts from now on by
    `multiprocessing`, by every start method. Their workers, if they start from now on, stack samples in
    shared memory. The other tensors that they send, those of a ``collate_fn`` of the program's own among
    them, are copied there instead of into a file. Nothing changes for tensors that are sent from elsewhere.

    Raises
    ------
    ImportError
        torch is not installed.

    Warns
    -----
    RuntimeWarning
        This version of torch does not have what is needed. Nothing was changed.

    See Also
    --------
    uninstall : Gives it up again.
    collate : For a single DataLoader.

    Notes
    -----
    Left to torch are tensors that need a gradient and have a history, those on other devices, sparse and
    quantized ones, tensors of subclasses, and those that torch shares already (``share_memory_()``). A
    function that a program has put into torch's ``default_collate_fn_map`` for tensors stays there.

    Two views of one private tensor in a batch arrive as two tensors with memory of their own; torch's share
    theirs.

    Calling it again does nothing. It may be called by any thread.
    """
    _need_torch()
    missing = torch_batches.missing_hooks()
    if missing is not None:
        torch: Any = importlib.import_module("torch")
        warnings.warn(
            f"sharedmem.torch does not know torch {getattr(torch, '__version__', '')}, in which {missing} is "
            "missing: batches travel as torch sends them",
            RuntimeWarning,
            stacklevel=2,
        )
        return
    torch_batches.switch(True)


def uninstall() -> None:
    """Have DataLoaders send their batches as torch does: what `install` changed is as it was.

    Workers that are running go on as they began. Without `install` before it does nothing.
    """
    torch_batches.switch(False)
