"""What the tests of lost messages have in common."""

import time

import pytest

import sharedmem

DUPLEX = pytest.mark.parametrize("duplex", [False, True], ids=["pipe", "socket"])


def leases():
    return sharedmem.stats()["leases"]


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
