"""Dask keeps a log of the messages it has sent: no array in shared memory may stay because of it."""

import asyncio

import numpy as np
import pytest

import sharedmem

distributed = pytest.importorskip("distributed")


async def logged(make, allow_shared):
    """The messages that Dask has kept, after one with an array has been sent and read."""
    from distributed.batched import BatchedSend
    from distributed.comm import connect, listen

    from sharedmem._engines import dask_comm

    came = asyncio.Queue()

    async def reader(comm):
        while True:
            await came.put(await comm.read())

    listener = await listen("sharedmem://127.0.0.1", reader)
    comm = await connect(listener.contact_address)
    assert isinstance(comm, dask_comm.SharingTCP)
    assert comm._shares
    comm._shares = allow_shared
    sender = BatchedSend(interval="1ms")
    sender.start(comm)
    sender.send({"op": "small"}, {"x": distributed.protocol.to_serialize(make())})
    if allow_shared:
        await came.get()
    while sender.batch_count == 0 or not sender.recent_message_log:
        await asyncio.sleep(0.01)
    kept = list(sender.recent_message_log)
    comm.abort()
    await sender.close()
    listener.stop()
    return kept


@pytest.mark.parametrize("n", [10, 1000, 100_000])
def test_messages_with_handles_are_not_kept(n):
    assert asyncio.run(logged(lambda: sharedmem.ones(n), True)) == ["large-message"]


@pytest.mark.parametrize(("n", "large"), [(10, False), (1000, True), (100_000, True)])
def test_messages_by_value_that_may_have_arrays_are_not_kept(n, large):
    found = asyncio.run(logged(lambda: sharedmem.ones(n), False))
    assert (found == ["large-message"]) == large, found


def test_small_messages_are_kept():
    found = asyncio.run(logged(lambda: np.ones(3), True))
    assert [message["op"] for message in found[0] if "op" in message] == ["small"]
