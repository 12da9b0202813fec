"""Fixtures and a loader for tests of torch's DataLoader. Importing this module imports torch."""

import conftest
import pytest
from support import TIMEOUT, settle, wait_until
from torch.utils.data import DataLoader

import sharedmem

SIZE = 8
WORKERS = 2

# Seconds for one batch; torch has no time limit unless one is given.
WITHIN = TIMEOUT


@pytest.fixture
def installed():
    sharedmem.torch.install()
    yield
    sharedmem.torch.uninstall()


@pytest.fixture(autouse=True)
def frees_all(request):
    """Fails a test after which arrays or messages of the DataLoader are kept."""
    before = counts()
    yield
    if request.node.stash.get(conftest.passed, False):
        settle()
        assert wait_until(lambda: counts() <= before), (counts(), before)


def counts():
    sharedmem.collect()
    now = sharedmem.stats()
    return now["leases"], now["live_blocks"]


def free_what_was_being_sent(before):
    """The messages that workers were about to send when they ended: one of each worker at most.

    Nobody can receive them, but that is not known, so they are kept until memory is short. All else that was
    in flight must be free already.
    """
    assert wait_until(lambda: counts()[0] <= before[0] + WORKERS), counts()
    sharedmem.collect(leases=True)


def loader(dataset, method="fork", **options):
    workers = WORKERS if method in ("fork", None) else 1  # workers of other methods have to import torch
    options = {"batch_size": SIZE, "num_workers": workers, "timeout": WITHIN, **options}
    return DataLoader(dataset, multiprocessing_context=method, **options)
