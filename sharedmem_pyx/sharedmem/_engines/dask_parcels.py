"""The parcels of one of Dask's connections: sent, and called back when the connection has ended.

Each parcel is kept until its reader has opened it. When a connection ends, its unopened parcels are called
back after `GRACE` seconds, since until then a reader may still read them from the socket. The event loop does
this, or the next connection that is used if the loop has stopped; there is no thread for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque

from sharedmem._transfers.parcels import Parcel

#: Seconds after the end of a connection.
GRACE = 30.0

# Unopened parcels of connections that have ended: (when it is called back, parcel), oldest first.
_left: deque[tuple[float, Parcel]] = deque()


def revoke_overdue() -> None:
    """Call back parcels of ended connections that were not opened in time.

    Any thread may call it, and it may be called within itself, since a connection that was not closed ends
    when it is collected as garbage. Therefore each parcel is removed from the list before it is examined.
    """
    now = time.monotonic()
    while True:
        try:
            when, parcel = _left.popleft()
        except IndexError:
            return
        if when > now and not parcel.delivered:
            _left.appendleft((when, parcel))
            return
        parcel.revoke()


class Outbox:
    """The parcels that one connection has written and that may not have been opened yet.

    Not thread-safe: for the thread of the event loop.
    """

    def __init__(self) -> None:
        self._parcels: deque[Parcel] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        with contextlib.suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()

    def add(self, parcel: Parcel) -> None:
        """Note a parcel whose handles are about to be written.

        Parameters
        ----------
        parcel : Parcel
            Its handles are the reader's from now on.
        """
        self.tidy()
        parcel.sent()
        self._parcels.append(parcel)

    def withdraw(self, parcel: Parcel) -> None:
        """Call back a parcel whose handles could not be written.

        Parameters
        ----------
        parcel : Parcel
            It was added.
        """
        parcel.revoke()
        self.tidy()

    def tidy(self) -> None:
        """Forget what was opened, oldest first."""
        while self._parcels and self._parcels[0].delivered:
            self._parcels.popleft()

    def leave(self) -> None:
        """The connection has ended: call back what is not opened in `GRACE` seconds. Can be repeated."""
        revoke_overdue()
        parcels, self._parcels = self._parcels, deque()
        when = time.monotonic() + GRACE
        left = [(when, each) for each in parcels if not each.delivered]
        if not left:
            return
        _left.extend(left)
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._loop.call_later, GRACE + 0.1, revoke_overdue)
