"""Batches of torch's DataLoader in shared memory, without descriptors and without files in /dev/shm.

A worker of a `torch.utils.data.DataLoader` sends each batch in a file of its own. With this module it creates
the batch in shared memory that is reused again and again, and sends a handle of a hundred bytes. Batches
remain ordinary tensors, which belong to their receiver.

Enable this for all DataLoaders of a program, or for one::

    sharedmem.torch.install()
    DataLoader(dataset, batch_size=256, num_workers=4, collate_fn=sharedmem.torch.collate)

Neither is needed for tensors over shared arrays: all of `torch.multiprocessing` sends them by handle.
Tested with torch 2.13.0. If a version of torch lacks what this module needs, there is one
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
    """Collate samples into a batch in shared memory: the `collate_fn` of a DataLoader.

    It does what `torch.utils.data.default_collate` does, with as many copies: samples are stacked directly
    in the batch. It respects types that a program has added to torch's ``default_collate_fn_map``.

    Parameters
    ----------
    batch : sequence
        The samples: tensors, arrays, numbers, text, and dicts, tuples and lists of them.

    Returns
    -------
    torch.Tensor or collection of them
        As `torch.utils.data.default_collate` returns. Tensors on the CPU are in shared memory, which is freed
        with the last tensor over it in any process.

    Raises
    ------
    ImportError
        torch is not installed.
    RuntimeError
        The samples differ in size, or are sparse.
    TypeError
        torch's own function does not know the type of a sample either.

    See Also
    --------
    install : The same for all DataLoaders, and for the results of the program's own ``collate_fn``.

    Notes
    -----
    torch handles samples that need a gradient, are quantized or on another device, and samples of several
    types. If there is not enough shared memory, torch makes the batch, with one RuntimeWarning.

    It may be called anywhere, not only by workers, and by several threads at once.
    """
    _need_torch()
    return torch_batches.collate_in_arena(batch)


def install() -> None:
    """Make all DataLoaders send their batches through shared memory, from now on.

    This applies to DataLoaders of this process, and of processes that it starts from now on by
    `multiprocessing`, by every start method. Workers that start from now on stack samples in
    shared memory. All other tensors that they send, including those of the program's own ``collate_fn``,
    are copied there instead of into a file. Nothing changes for tensors that are sent from elsewhere.

    Raises
    ------
    ImportError
        torch is not installed.

    Warns
    -----
    RuntimeWarning
        This version of torch lacks what is needed. Nothing was changed.

    See Also
    --------
    uninstall : Reverts it.
    collate : Does this for a single DataLoader.

    Notes
    -----
    torch handles tensors that need a gradient and have a history, those on other devices, sparse and
    quantized ones, tensors of subclasses, and those that torch shares already (``share_memory_()``). If a
    program has put a function for tensors into torch's ``default_collate_fn_map``, that is not replaced.

    Two views of one private tensor in a batch arrive as two tensors with separate memory, where torch's would
    share it.

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
    """Make DataLoaders send their batches as torch does: revert the changes of `install`.

    Workers that are already running are not affected. Without `install` before, it does nothing.
    """
    torch_batches.switch(False)
