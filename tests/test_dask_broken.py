"""Connections of Dask that break: nothing of what was under way is kept because of that."""

import asyncio
import gc
import socket
import struct
import weakref

import numpy as np
import pytest

distributed = pytest.importorskip("distributed")
from distributed.comm import CommClosedError, connect, listen  # noqa: E402

import sharedmem  # noqa: E402
from sharedmem._engines import dask_comm  # noqa: E402
from sharedmem._transfers.parcels import make_parcel, open_handle  # noqa: E402


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


@pytest.mark.parametrize("failing", range(3))
def test_a_message_of_which_a_buffer_cannot_be_attached_keeps_none(failing, monkeypatch):
    before = sharedmem.stats()["leases"]
    parcel = make_parcel([np.ones(1 << 16, "u1") for _ in range(3)], 1)
    parcel.sent()

    def open_unless_failing(handle):
        if handle == parcel.handles[failing]:
            raise MemoryError
        return open_handle(handle)

    monkeypatch.setattr(dask_comm, "open_handle", open_unless_failing)
    with pytest.raises(MemoryError):
        dask_comm._open(parcel.handles)
    assert sharedmem.stats()["leases"] == before
