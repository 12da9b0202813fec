"""Tools for tests of lost messages."""

import time

import pytest
from support import settle

import sharedmem

DUPLEX = pytest.mark.parametrize("duplex", [False, True], ids=["pipe", "socket"])


def leases():
    return sharedmem.stats()["leases"]


def leases_before():
    """Those that stay when everything that other tests have sent is given up."""
    settle()
    sharedmem.revoke(0)
    return leases()


def ways(context, duplex):
    """(end to read from, end to write to)."""
    return context.Pipe(duplex)


def sleep_long(*_):
    time.sleep(600)


def stopped_reader(context, *ends):
    """A process that has the ends and reads nothing; ready to be killed."""
    process = context.Process(target=sleep_long, args=ends, daemon=True)
    process.start()
    return process


def kill(process):
    process.kill()
    process.join()
    process.close()
