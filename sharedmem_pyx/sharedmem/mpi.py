"""Arrays in shared memory for the ranks of an MPI program (mpi4py) that run on one host.

>>> from mpi4py import MPI
>>> import sharedmem.mpi
>>> node = sharedmem.mpi.node(MPI.COMM_WORLD)
>>> a = sharedmem.mpi.empty((1000, 1000), float, node)  # one array, shared by all ranks of the node

All functions are collective: every rank of the communicator calls them, with the same arguments except where
stated otherwise. An error of one rank is raised at all of them, so that no rank waits for ever. The exception
is an argument that is not a communicator at all: only the rank that passes it notices that.

An array lives as long as any rank has it, whichever rank created it. There are no windows, and nothing has to
be freed by hand. Tested with mpi4py 4.1.2 and Open MPI 4.1.4.
"""

from __future__ import annotations

import operator
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

try:
    from mpi4py import MPI  # type: ignore[import-not-found,import-untyped,unused-ignore]
except ImportError as missing:
    raise ImportError(
        "sharedmem.mpi needs mpi4py, which is not installed: pip install 'numpy-sharedmem[mpi]'",
        name="mpi4py",
    ) from missing

import sharedmem
from sharedmem._integrations.mpi_ import (
    agree,
    attach,
    check_communicator,
    check_nodes,
    groups_of,
    handle_of,
    keep,
    probe,
    rank_in,
    ranks_of,
    same,
)
from sharedmem.array import SharedArray

__all__ = ["bcast", "bcast_world", "empty", "node"]

#: Most ranks of one node communicator: a process attaches at most 128 arenas, and each rank may have one.
_MOST_RANKS = 100
#: Most bytes of one MPI call, whose counts have 31 bits.
_MOST_BYTES = 1 << 30


def node(comm: MPI.Intracomm) -> MPI.Intracomm:
    """Create a communicator of the ranks that can use this rank's arrays, and whose arrays it can use.

    This differs from ``comm.Split_type(MPI.COMM_TYPE_SHARED)``: ranks on one host may be in different
    containers, or belong to different users. Ranks of one `sharedmem.place` try each other's memory; those
    for which this fails are separated. Every rank is in one such communicator, perhaps alone.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
        The ranks to divide.

    Returns
    -------
    mpi4py.MPI.Intracomm
        New, with the ranks in their order in `comm`, at most 100 of them: on hosts with more ranks there are
        several. Free it by ``Free`` when it is no longer needed, like other communicators.

    Raises
    ------
    TypeError
        `comm` is not a communicator.
    ValueError
        It is the null communicator.

    See Also
    --------
    sharedmem.place : Describes what is compared first.

    Notes
    -----
    It takes a few milliseconds, so call it once. It keeps the arenas of its ranks attached until it is freed.
    """
    check_communicator(comm, "comm")
    try:
        mine = sharedmem.place()
    except (MemoryError, OSError):
        mine = f"rank {comm.rank}"
    places = comm.allgather(mine)
    members = [rank for rank, place in enumerate(places) if place == mine]
    first = members.index(comm.rank) // _MOST_RANKS * _MOST_RANKS
    candidates: Any = comm.Split(members[first], comm.rank)
    try:
        arrays = probe(candidates)
        groups = groups_of(candidates.allgather([each is not None for each in arrays]))
        own = groups[candidates.rank]
        found: MPI.Intracomm = candidates.Split(own, candidates.rank)
        keep(found, [each for each, group in zip(arrays, groups, strict=True) if group == own])
        return found
    finally:
        candidates.Free()


# -- collective functions


def empty(
    shape: int | tuple[int, ...], dtype: DTypeLike, node: MPI.Intracomm, order: Literal["C", "F"] = "C"
) -> SharedArray:
    """Create one array for all ranks of a node, without setting its elements.

    Parameters
    ----------
    shape : int or tuple of int
        Elements along each axis.
    dtype : dtype_like
        Fixed-size type.
    node : mpi4py.MPI.Intracomm
        The result of `node`.
    order : {"C", "F"}, optional
        Whether the last or the first axis is contiguous.

    Returns
    -------
    SharedArray
        The same memory at every rank; rank 0 has allocated it. Ranks that write what others read have to
        call ``node.Barrier()`` in between, as with any shared memory.

    Raises
    ------
    MemoryError
        Not enough memory.
    TypeError
        `dtype` contains Python objects, or an argument has a wrong type.
    ValueError
        The ranks passed different arguments.
    RuntimeError
        A rank cannot use the memory: `node` is not a result of `sharedmem.mpi.node`.
    """
    check_communicator(node, "node")
    error: Exception | None = None
    wanted = made = handle = None
    try:
        sizes = tuple(map(operator.index, shape if np.iterable(shape) else (shape,)))
        wanted = sizes, np.dtype(dtype), order
        if node.rank == 0:
            made = sharedmem.empty(sizes, wanted[1], order)
            handle = handle_of(made)
    except Exception as failed:
        error = failed
    found = agree(node, error, (wanted, handle))
    same([each for each, _ in found], "shape, dtype and order")
    return attach(node, found[0][1], made)


def bcast(a: ArrayLike | None, root: int, node: MPI.Intracomm) -> SharedArray:
    """Give all ranks of a node one array of one rank.

    Parameters
    ----------
    a : array_like
        At the root: an array in shared memory, which is not copied, or any other array or array_like, of
        which one copy is made. At other ranks it is ignored; pass None.
    root : int
        The rank in `node` whose array is sent; the same at all ranks.
    node : mpi4py.MPI.Intracomm
        The result of `node`.

    Returns
    -------
    SharedArray
        The same memory at every rank, including the root. The root may drop `a`.

    Raises
    ------
    MemoryError
        Not enough memory for a copy.
    TypeError
        The array contains Python objects, is a masked array or the like, or `root` is not an int.
    ValueError
        There is no such rank, or the ranks passed different ones.
    RuntimeError
        A rank cannot use the memory: `node` is not a result of `sharedmem.mpi.node`, or `a` lies in a file
        that not every rank can open.
    """
    check_communicator(node, "node")
    error: Exception | None = None
    number = made = handle = None
    try:
        number = rank_in(node, root)
        if node.rank == number:
            made = _shared(a)
            handle = handle_of(made)
    except Exception as failed:
        error = failed
    found = agree(node, error, (number, handle))
    same([each for each, _ in found], "root")
    return attach(node, found[found[0][0]][1], made)


def bcast_world(
    a: ArrayLike | None, root: int, comm: MPI.Intracomm, node: MPI.Intracomm | None = None
) -> SharedArray:
    """Give all ranks an array of one rank, with one copy for each node.

    Parameters
    ----------
    a : array_like
        At the root, as for `bcast`.
    root : int
        The rank in `comm` whose array is sent; the same at all ranks.
    comm : mpi4py.MPI.Intracomm
        The ranks that get it.
    node : mpi4py.MPI.Intracomm, optional
        The result of ``node(comm)``. Without it, it is created for this call, which takes some milliseconds.

    Returns
    -------
    SharedArray
        The same memory at all ranks of a node. On the root's node it is `a` itself if that is shared; on
        every other node one rank receives the elements.

    Raises
    ------
    MemoryError
        Not enough memory for a copy on some node.
    TypeError, ValueError, RuntimeError
        As `bcast`; and `node` is not of `comm`.
    """
    check_communicator(comm, "comm")
    if node is not None:
        check_communicator(node, "node")
        return _bcast_world(a, root, comm, node)
    own = _new_node(comm)
    try:
        return _bcast_world(a, root, comm, own)
    finally:
        own.Free()


_new_node = node  # a parameter has this name


def _shared(a: Any) -> SharedArray:
    """The array itself if it is in shared memory, otherwise a copy in shared memory."""
    if a is None:
        raise TypeError("the root must pass an array, not None")
    if (
        isinstance(a, np.ndarray)
        and not isinstance(a, (SharedArray, np.memmap))
        and type(a) is not np.ndarray
    ):
        raise TypeError(f"a {type(a).__name__} consists of more than its elements: broadcast its parts")
    return sharedmem.asshared(a)


def _bytes_of(a: Any) -> Any:
    """The bytes of an array, or of a copy in C order if they are not contiguous."""
    a = np.asarray(a)
    return np.ascontiguousarray(a.T if a.flags.f_contiguous else a).reshape(-1).view(np.uint8)


def _bcast_world(a: Any, root: Any, comm: Any, own: Any) -> SharedArray:
    error: Exception | None = None
    number = about = made = data = mine = None
    ranks: list[int] = []
    try:
        ranks = ranks_of(own, comm)
        mine = hash(tuple(ranks)), len(ranks)
        number = rank_in(comm, root)
        if comm.rank == number:
            made = _shared(a)
            fortran = made.flags.f_contiguous and not made.flags.c_contiguous
            about = made.shape, made.dtype, "F" if fortran else "C", made.flags.writeable
            data = _bytes_of(made) if own.size < comm.size else None
    except Exception as failed:
        error = failed
    found = agree(comm, error, (number, about, mine))
    same([each for each, _, _ in found], "root")
    check_nodes([each for _, _, each in found])
    number = found[0][0]
    shape, dtype, order, writeable = found[number][1]
    leader = ranks.index(number) if number in ranks else 0
    leads = own.rank == leader
    if leads and made is None:
        try:
            made = sharedmem.empty(shape, dtype, order)
            data = _bytes_of(made)
        except Exception as failed:
            error = failed
    agree(comm, error)
    leaders = comm.Split(0 if leads else MPI.UNDEFINED, 0 if comm.rank == number else 1 + comm.rank)
    if leads:
        if data is not None:  # otherwise there is one node
            for start in range(0, len(data), _MOST_BYTES):
                leaders.Bcast([data[start : start + _MOST_BYTES], MPI.BYTE], 0)
        leaders.Free()
        if made is not None and not writeable:
            made.flags.writeable = False
    return bcast(made, leader, own)
