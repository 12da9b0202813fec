"""What ends of a Dask connection tell each other first, where one is of another version of this library."""

import asyncio

import pytest

import sharedmem

pytest.importorskip("distributed")

from distributed.comm import connect, listen
from distributed.protocol import to_serialize

from sharedmem._engines import dask_comm


async def exchange():
    """Sends an array to the other end and back: the array, and whether each end has shared its memory."""
    ends = []

    async def answer(comm):
        ends.append(comm)
        await comm.write(await comm.read())

    async with listen("sharedmem://127.0.0.1:0", answer, deserialize=False) as listener:
        comm = await connect(listener.contact_address, timeout=60)
        ends.append(comm)
        await comm.write({"a": to_serialize(sharedmem.full(100_000, 7.0))})
        found = await comm.read()
        shared = [each._shares for each in ends]
        await comm.close()
    return found["a"], shared


@pytest.mark.parametrize(
    "told",
    [None, "text", 5, {}, {"format": 2}, {"place": None}, {"place": ["x"]}, {"place": sharedmem.place()}],
    ids=str,
)
def test_what_one_end_cannot_read_means_values(told, monkeypatch):
    class Other(dask_comm.SharingTCP):
        def handshake_info(self):
            info = {**super().handshake_info(), "sharedmem": told}
            if not (isinstance(told, dict) and told.get("place") == sharedmem.place()):
                self._mine = None  # to that version, what this one tells is as strange
            return info

    monkeypatch.setattr(dask_comm._OwnConnector, "comm_class", Other)
    monkeypatch.setattr(dask_comm, "_warned", set())
    array, shared = asyncio.run(exchange())
    assert (array == 7).all()
    assert len(array) == 100_000
    assert shared == [False, False]


def test_two_ends_of_one_version_share():
    array, shared = asyncio.run(exchange())
    assert (array == 7).all()
    assert shared == [True, True]
