"""mpi4py: how the ranks of `sharedmem.mpi` exchange errors, and find out whose memory they can use."""

from __future__ import annotations

import operator
import os
import pickle
from typing import Any

import numpy as np
from mpi4py import MPI  # type: ignore[import-not-found,import-untyped,unused-ignore]

import sharedmem
from sharedmem._messages import by_value
from sharedmem.array import SharedArray

# Errors of one rank that the others raise with the same class; all others raise a RuntimeError there.
_ERRORS: dict[str, type[Exception]] = {
    each.__name__: each for each in (MemoryError, OSError, PermissionError, TypeError, ValueError)
}


# -- agreeing


def check_communicator(comm: Any, name: str) -> None:
    """Raise an error unless an argument is a usable communicator."""
    if not isinstance(comm, MPI.Intracomm):
        raise TypeError(f"{name} must be an MPI.Intracomm, not {type(comm).__name__}")
    if comm == MPI.COMM_NULL:
        raise ValueError(f"{name} is MPI.COMM_NULL, or was freed")


def agree(comm: Any, error: Exception | None, value: Any = None) -> list[Any]:
    """The values of all ranks; if any rank has an error, every rank raises its own or the first of others."""
    try:
        pickle.dumps(value)
    except Exception as failed:  # of an argument of a wrong kind; the others wait for this rank
        error, value = failed, None
    said = None if error is None else (type(error).__name__, str(error))
    found = comm.allgather((said, value))
    if error is not None:
        raise error
    for rank, (other, _) in enumerate(found):
        if other is not None:
            kind, text = other
            raise _ERRORS.get(kind, RuntimeError)(f"rank {rank} of {comm.size}: {kind}: {text}")
    return [each for _, each in found]


def same(values: list[Any], what: str) -> None:
    """Raise an error unless all ranks have the same value. All have the same list, so all raise the same."""
    for rank, value in enumerate(values):
        if value != values[0]:
            raise ValueError(
                f"{what} must be the same at all ranks: rank 0 has {values[0]}, rank {rank} has {value}"
            )


def rank_in(comm: Any, root: Any) -> int:
    """An argument that names a rank, as an int."""
    number = operator.index(root)
    if not 0 <= number < comm.size:
        raise ValueError(f"root is rank {number}, but the communicator has the ranks 0 to {comm.size - 1}")
    return number


def ranks_of(node: Any, comm: Any) -> list[int]:
    """The numbers in `comm` of the ranks of one of its nodes."""
    inner, outer = node.Get_group(), comm.Get_group()
    try:
        found: list[int] = inner.Translate_ranks(None, outer)
    finally:
        inner.Free()
        outer.Free()
    if MPI.UNDEFINED in found:
        raise ValueError("node has ranks that comm has not; pass what sharedmem.mpi.node(comm) returned")
    return found


def check_nodes(nodes: list[tuple[int, ...]]) -> None:
    """Raise an error unless the nodes of all ranks fit together; each tuple ends in its number of ranks."""
    for each in nodes:
        if nodes.count(each) != each[-1]:
            raise ValueError(
                "the ranks pass node communicators that do not fit together; all must pass what "
                "sharedmem.mpi.node(comm) returned"
            )


# -- arrays


def handle_of(array: SharedArray) -> bytes:
    """A pickle that names the array's memory, and does not keep it."""
    token = by_value.set(False)  # `pickle_by_value` is for what leaves this host
    try:
        return pickle.dumps(array, pickle.HIGHEST_PROTOCOL)
    finally:
        by_value.reset(token)


def attach(comm: Any, handle: bytes, made: SharedArray | None) -> SharedArray:
    """The array of a handle at every rank; the rank that has it already keeps it until all have it."""
    error: Exception | None = None
    if made is None:
        try:
            loaded = pickle.loads(handle)
            # Without elements it was pickled as an ndarray.
            made = loaded if isinstance(loaded, SharedArray) else loaded.view(SharedArray)
        except Exception as failed:
            error = RuntimeError(
                f"cannot use the array of another rank, {type(failed).__name__}: {failed}; "
                "sharedmem.mpi.node(comm) makes communicators of ranks that can"
            )
            error.__cause__ = failed
    agree(comm, error)
    assert made is not None
    return made


# -- whose memory can be used


def probe(comm: Any) -> list[SharedArray | None]:
    """For each rank a small array of its memory; None if this rank cannot read what that one wrote."""
    mark = int.from_bytes(os.urandom(8), "little")
    mine = handle = None
    try:
        mine = sharedmem.full(8, mark, np.uint64)
        handle = handle_of(mine)
    except (MemoryError, OSError, RuntimeError, ValueError):
        pass  # a rank without memory is alone
    found: list[SharedArray | None] = []
    for written, other in comm.allgather((mark, handle)):
        try:
            array = pickle.loads(other)
            found.append(array if int(array[7]) == written else None)
        except Exception:  # after any error: that memory cannot be used
            found.append(None)
    comm.Barrier()
    del mine  # only after all ranks have read it
    return found


_kept: int | None = None


def keep(comm: Any, arrays: list[SharedArray | None]) -> None:
    """Keep arrays as long as a communicator exists, so that their memory stays attached.

    Otherwise each call would spend most of its time on attaching it again and on its page tables.
    """
    global _kept
    if _kept is None:
        _kept = MPI.Comm.Create_keyval()
    comm.Set_attr(_kept, arrays)


def groups_of(reaching: list[list[bool]]) -> list[int]:
    """For each rank the number of its group, all of whose members reach each other."""
    groups: list[list[int]] = []
    numbers = []
    for rank, row in enumerate(reaching):
        for number, group in enumerate(groups):
            if all(row[other] and reaching[other][rank] for other in group):
                group.append(rank)
                numbers.append(number)
                break
        else:
            numbers.append(len(groups))
            groups.append([rank])
    return numbers
