"""The parcels of a connection of Dask: what they keep, and when they are called back."""

import asyncio

import numpy as np
import pytest

import sharedmem
from sharedmem import StaleHandleError
from sharedmem._engines import dask_parcels
from sharedmem._transfers.parcels import make_parcel, open_handle


def sent(outbox):
    """The handle of a parcel that was written to a connection."""
    parcel = make_parcel([np.ones(1 << 20, "u1")], 1)
    outbox.add(parcel)
    return parcel.handles[0]


def leases():
    return sharedmem.stats()["leases"]


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(dask_parcels, "GRACE", 0.05)


def test_what_was_opened_is_forgotten():
    outbox = dask_parcels.Outbox()
    for _ in range(3):
        open_handle(sent(outbox))
    outbox.tidy()
    assert not outbox._parcels


def test_what_is_left_is_called_back_by_the_loop(short):
    before = leases()

    async def connection():
        outbox = dask_parcels.Outbox()
        opened, unread = sent(outbox), sent(outbox)
        open_handle(opened)
        outbox.leave()
        outbox.leave()
        assert leases() == before + 1
        for _ in range(1000):
            await asyncio.sleep(0.05)
            if leases() == before:
                break
        return unread

    unread = asyncio.run(connection())
    assert leases() == before
    with pytest.raises(StaleHandleError):
        open_handle(unread)


def test_what_was_opened_does_not_wait_for_being_called_back():
    outbox = dask_parcels.Outbox()
    open_handle(sent(outbox))
    outbox.leave()
    assert not dask_parcels._left


def test_it_can_be_opened_until_then():
    outbox = dask_parcels.Outbox()
    handle = sent(outbox)
    outbox.leave()
    dask_parcels.revoke_overdue()
    assert open_handle(handle).all()
    dask_parcels.revoke_overdue()
    assert not dask_parcels._left


def test_without_a_loop_the_next_connection_that_ends_calls_it_back(short, monkeypatch):
    before = leases()
    outbox = dask_parcels.Outbox()
    sent(outbox)
    outbox.leave()
    assert leases() == before + 1
    monkeypatch.setattr(dask_parcels.time, "monotonic", lambda: float("inf"))
    dask_parcels.Outbox().leave()
    assert leases() == before


def test_a_connection_that_is_collected_in_the_middle_calls_back_nothing_too_early():
    class Interrupted:
        """A parcel that was delivered, and where another connection is collected when that is asked."""

        asked = False

        @property
        def delivered(self):
            if not self.asked:
                self.asked = True
                dask_parcels.revoke_overdue()
            return True

        def revoke(self):
            pass

    outbox = dask_parcels.Outbox()
    handle = sent(outbox)
    dask_parcels._left.append((float("inf"), Interrupted()))
    outbox.leave()
    dask_parcels.revoke_overdue()
    dask_parcels._left.append((float("inf"), Interrupted()))  # the last one
    assert open_handle(handle).all()
    dask_parcels.revoke_overdue()
    assert not dask_parcels._left


def test_what_could_not_be_written_is_called_back_at_once():
    before = leases()
    outbox = dask_parcels.Outbox()
    parcel = make_parcel([np.ones(1 << 20, "u1")], 1)
    outbox.add(parcel)
    outbox.withdraw(parcel)
    assert leases() == before
    assert not outbox._parcels


def test_a_connection_that_is_dropped_leaves_what_it_wrote_to_the_reader():
    outbox = dask_parcels.Outbox()
    handle = sent(outbox)
    del outbox
    assert open_handle(handle).all()
