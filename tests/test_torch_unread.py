"""What a process that is no reader of a DataLoader does with that: nothing."""

import os

import pytest
from support import TIMEOUT, in_fork, wait_until

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
        # The child has told the workers to stop, as torch does; what they had sent is there.
        images, labels = next(batches)
        assert images.shape == (2, 5000)
        assert labels.tolist() == [0, 1]
        del images, labels
        batches._shutdown_workers()
    finally:
        sharedmem.torch.uninstall()
