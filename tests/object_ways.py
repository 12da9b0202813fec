"""Tools for tests of `share`, `dumps` and `loads`."""

import pytest
from support import settle

import sharedmem
from sharedmem import dumps, loads, share


def sent(obj):
    """What arrives of an object that is made into a message and loaded."""
    return loads(dumps(obj))


#: A test with this mark is run by both ways to an object whose data lies in shared memory.
BOTH = pytest.mark.parametrize("way", [share, sent])


def leases():
    return sharedmem.stats()["leases"]


def live(what):
    """The number of "blocks" or "bytes" in use, when garbage has been collected."""
    settle()
    return sharedmem.stats()[f"live_{what}"]
