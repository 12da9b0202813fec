"""Only the reader of a DataLoader's pipe frees unread messages; other processes do not."""

import os
import struct

import pytest
from support import TIMEOUT, dumps, in_fork, wait_until

import sharedmem

torch = pytest.importorskip("torch")
pytest.importorskip("torch.utils.data")

from torch.utils.data import DataLoader  # noqa: E402
from torch_samples import Images  # noqa: E402

from sharedmem._integrations import torch_unread  # noqa: E402


def test_a_forked_child_that_drops_an_iterator_reads_nothing_of_it():
    sharedmem.torch.install()
    try:
        loader = DataLoader(
            Images(4, 5000),
            batch_size=2,
            num_workers=1,
            prefetch_factor=2,
            multiprocessing_context="fork",
            timeout=TIMEOUT,
        )
        batches = iter(loader)
        pipe = batches._worker_result_queue._reader.fileno()
        assert wait_until(lambda: torch_unread._bytes_in_pipe(pipe) > 0)
        workers = batches._workers
        assert all(worker.is_alive() for worker in workers)

        def child():
            # As a collector of garbage does: torch refuses, and has marked it as shut down.
            with pytest.raises(AssertionError):
                batches._shutdown_workers()
            os._exit(7)

        assert in_fork(child) == 7
        # The child has made the workers stop, as torch does; what they had sent is still there.
        images, labels = next(batches)
        assert images.shape == (2, 5000)
        assert labels.tolist() == [0, 1]
        del images, labels
        batches._shutdown_workers()
    finally:
        sharedmem.torch.uninstall()


def messages(count):
    """As a Connection writes them, each with one array that no other object has."""
    for _ in range(count):
        message = bytes(dumps(sharedmem.ones(10)))
        yield struct.pack("!i", len(message)) + message


def test_each_message_is_discarded_to_the_last_and_what_is_cut_short_is_left():
    before = sharedmem.stats()["leases"]
    torch_unread._discard_all(b"".join(messages(5)))
    assert sharedmem.stats()["leases"] == before
    (whole,) = messages(1)
    torch_unread._discard_all(b"")
    torch_unread._discard_all(whole[:3])
    torch_unread._discard_all(struct.pack("!i", 0) + whole + whole[:30])
    assert sharedmem.stats()["leases"] == before
    # Of more than 2 GiB; the size follows, and where the next message begins is not known.
    torch_unread._discard_all(struct.pack("!iQ", -1, 1 << 32) + b"...")


def test_everything_in_a_pipe_is_read_without_waiting_for_more():
    reader, writer = os.pipe()
    try:
        assert torch_unread._read_all(reader) == b""
        os.write(writer, b"some")
        assert torch_unread._bytes_in_pipe(reader) == 4
        assert torch_unread._read_all(reader) == b"some"
    finally:
        os.close(reader)
        os.close(writer)
