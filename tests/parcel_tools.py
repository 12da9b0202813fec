"""Tools for tests of parcels: what the reader of a parcel does, and a check that no lease is left."""

import pytest
from support import settle

import sharedmem
from sharedmem._transfers.parcels import is_carried, make_parcel, open_handle

LEAST = 32 << 10
LARGE = 1 << 20


def leases():
    return sharedmem.stats()["leases"]


@pytest.fixture(autouse=True)
def no_lease_is_left():
    sharedmem.revoke(0)  # messages of earlier tests, which keep arenas attached
    before = leases()
    yield
    settle()
    assert leases() <= before  # those of earlier tests may end meanwhile


# What the reader does, in another process.
OPENED = {}


def open_and_keep(key, handle):
    OPENED[key] = open_handle(handle)
    return is_carried(OPENED[key]), OPENED[key].flags.writeable


def add_one(key):
    OPENED[key] += 1


def total(key):
    return int(OPENED[key].sum(dtype="u8"))


def parcel_of_kept(key):
    """A parcel that is not called back when this process forgets it, and how much of it was copied."""
    parcel = make_parcel([OPENED[key]], LEAST)
    parcel.sent()
    return parcel.handles[0], parcel.carried


def forget(key):
    del OPENED[key]


def carry(array):
    """The array that another process would get of a private one, in this process."""
    parcel = make_parcel([array], LEAST)
    parcel.sent()
    return open_handle(parcel.handles[0])
