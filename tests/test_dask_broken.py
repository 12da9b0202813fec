"""Connections of Dask that break: nothing of what was under way is kept because of that."""

import asyncio
import gc
import socket
import struct
import weakref

import pytest

distributed = pytest.importorskip("distributed")
from distributed.comm import CommClosedError, connect, listen  # noqa: E402

from sharedmem._engines import dask_comm  # noqa: E402


class Large:
    """Stands for an array that a coroutine of Dask has while it writes or reads."""


async def write(comm):
    while True:  # the first one after the end of the other may succeed
        await comm.write({"op": "nobody reads it"})


async def read(comm):
    await comm.read()


async def use_broken(method, scheme):
    """Use a connection whose other end has been reset; weak references to it and to an object of the user."""
    accepted = asyncio.Queue()
    listener = await listen(f"{scheme}://127.0.0.1", accepted.put)
    comm = await connect(listener.contact_address)
    assert isinstance(comm, dask_comm.SharingTCP)
    assert comm._shares
    theirs = await accepted.get()
    theirs.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.abort()
    obj = Large()
    gone = weakref.ref(comm), weakref.ref(obj)
    with pytest.raises(CommClosedError):
        await method(comm)
    listener.stop()
    return gone


@pytest.mark.parametrize("method", [write, read])
def test_a_broken_connection_and_its_users_can_be_collected(method):
    gone = asyncio.run(use_broken(method, "sharedmem"))
    gc.collect()
    assert [each() for each in gone] == [None, None]
