"""Dask keeps logs of messages and of errors: no array in shared memory may stay because of them."""

import asyncio
import logging
import weakref

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


class Large:
    def __str__(self):
        return "text of a large object"


def fail(obj):
    raise ValueError("in a frame that has a large object")


@pytest.fixture
def log():
    """The logger of a server of Dask that has begun to listen, and the log that the server keeps."""
    from distributed.utils import DequeHandler

    from sharedmem._engines import dask_logs

    logger = logging.Logger("test")  # without a parent: pytest keeps what other loggers get
    server = type("Server", (), {"_deque_handler": DequeHandler(n=10)})()
    logger.addHandler(server._deque_handler)
    for _ in range(2):  # it may listen at several addresses
        dask_logs.keep_text_only(server)
    return logger, server._deque_handler


def test_records_keep_text_and_no_objects(log):
    logger, handler = log
    obj = Large()
    gone = weakref.ref(obj)
    try:
        fail(obj)
    except ValueError as error:
        logger.exception("failed with %s", obj)
        logger.exception(error)
        logger.warning(obj)
    del obj
    said = [handler.format(record) for record in handler.deque]
    assert gone() is None
    assert len(said) == 3
    assert said[0].startswith("failed with text of a large object\nTraceback")
    assert said[1].startswith("in a frame that has a large object\nTraceback")
    assert all('in fail\n    raise ValueError("in a frame' in each for each in said[:2])
    assert said[2] == "text of a large object"


def test_other_handlers_get_whole_records(log):
    logger, _ = log
    other = distributed.utils.DequeHandler(n=10)
    logger.addHandler(other)
    try:
        fail(None)
    except ValueError:
        logger.exception("failed with %s", 1)
    (record,) = other.deque
    assert isinstance(record.exc_info[1], ValueError)
    assert (record.msg, record.args) == ("failed with %s", (1,))


def test_a_record_without_a_text_is_no_error_of_who_logs(log, monkeypatch):
    logger, handler = log
    told = []
    monkeypatch.setattr(handler, "handleError", told.append)
    logger.warning("%d", "no number")
    assert [record.args for record in told] == [("no number",)]
    assert not handler.deque


def test_a_server_without_such_a_log_is_left_alone():
    from sharedmem._engines import dask_logs

    dask_logs.keep_text_only(None)
