"""Connections of Dask that carry large buffers through shared memory, where both ends are in one place.

Such a connection is one of Dask's own, TCP or TLS, and every message goes through it. Dask divides a message
into frames: the pickle, and the buffers that were left out of it. If both ends are in one place, an
additional first frame has handles, which replace large frames and all frames that lie in shared memory. The
reader attaches the memory of these handles, and lets Dask load the frames as usual. So this module does not
depend on types of objects. Each hop makes new handles: the scheduler, which forwards frames without loading
them, is a reader and a sender like the others.

Both ends find out during their handshake whether they are in one place: see `sharedmem._transfers.probing`.
"""

from __future__ import annotations

import logging
import types
import weakref
from typing import Any

import msgpack
from distributed.comm import tcp
from distributed.comm.core import CommClosedError
from distributed.comm.utils import from_frames, to_frames
from distributed.utils import nbytes, offload

from sharedmem._engines import dask_limits, dask_logs
from sharedmem._engines.dask_parcels import Outbox
from sharedmem._transfers.parcels import drop_handle, least_carried, make_parcel, open_handle
from sharedmem._transfers.probing import load_probe, make_probe

logger = logging.getLogger("distributed.comm.sharedmem")

# The key of this library in the handshake of both ends.
_KEY = "sharedmem"

_UNSPLIT = 1 << 62  # bytes of a frame from which on Dask would split it
_OFFLOAD = 4 << 20  # bytes of frames from which on they are examined, and copied, in another thread

# For debugging, Dask keeps the last thousand messages that it sent, except those of more bytes than this
# (distributed.batched.BatchedSend). A message with handles has few bytes in the socket, but as long as it is
# kept, all its arrays are kept, too. Therefore its size is reported to Dask as large.
_NOT_LOGGED = 1_000_000
_LARGE = 4 << 10  # bytes of a message by value that may have arrays in it

_NO_HANDLES = b"\xc0"  # the frame that goes before those of a message: msgpack's nil


def _rebound(method: Any, **functions: Any) -> Any:
    """A version of a method of Dask that calls other functions where it calls those of these names."""
    made = types.FunctionType(method.__code__, {**method.__globals__, **functions}, method.__name__)
    made.__defaults__, made.__kwdefaults__ = method.__defaults__, method.__kwdefaults__
    return made


async def _as_they_are(frames: list[Any], **_: Any) -> list[Any]:
    return frames


# Dask's methods of TCP without the conversion between messages and frames: they write and read frames.
_write_frames = _rebound(tcp.TCP.write, to_frames=_as_they_are)
_read_frames = _rebound(tcp.TCP.read, from_frames=_as_they_are)

_tally = {"handles": 0, "carried": 0, "bytes": 0, "opened": 0}
_warned: set[str] = set()


def _place(info: Any) -> Any:
    """The place of the other end; None if it has none, or sends it in a form that is not understood."""
    probe = info.get(_KEY) if isinstance(info, dict) else None
    return probe.get("place") if isinstance(probe, dict) else None


def tally() -> dict[str, int]:
    """See `sharedmem.dask.tally`."""
    return dict(_tally)


def _warn_once(what: str, error: object) -> None:
    if what not in _warned:
        _warned.add(what)
        logger.warning("%s: %s", what, error)


def _open(handles: list[bytes]) -> list[memoryview]:
    """The frames of handles. If one of them cannot be attached, all are given back."""
    opened = []
    for i, handle in enumerate(handles):
        try:
            opened.append(open_handle(handle).data)
        except BaseException:
            for each in handles[i:]:
                drop_handle(each)
            raise
    _tally["opened"] += len(opened)
    return opened


def _told(written: int) -> int:
    """The size to report to Dask for a message that was sent as bytes."""
    return max(written, _NOT_LOGGED) if written >= _LARGE else written


class _Sharing(tcp.TCP):
    """What this library adds to Dask's comms; a base class of the classes below."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._mine: dict[str, Any] | None = None  # the probe that was sent
        self._probe: Any = None  # the array of the other end's: keeps its arena attached
        self._greeted = False
        self._shares = False  # both ends are in one place, and each can use the other's memory
        self._outbox = Outbox()
        weakref.finalize(self, self._outbox.leave).atexit = False

    # -- shaking hands

    def handshake_info(self) -> dict[str, Any]:
        """See Comm; with a probe."""
        info: dict[str, Any] = super().handshake_info()
        try:
            self._mine = make_probe()
        except Exception as error:
            _warn_once("this process has no shared memory, so that Dask sends values", error)
        else:
            info[_KEY] = self._mine
        return info

    @staticmethod
    def handshake_configuration(local: dict[str, Any], remote: dict[str, Any]) -> dict[str, Any]:
        """See Comm; nothing is compressed within one place."""
        out: dict[str, Any] = tcp.TCP.handshake_configuration(local, remote)
        if _place(local) is not None and _place(local) == _place(remote):
            out["compression"] = None
        return out

    async def _greet(self, info: Any) -> None:
        """Find out whether both ends can use each other's memory; `info` is what the other end has sent.

        Both ends write before they read, so neither waits for the other here.
        """
        self._greeted = True
        if self._mine is None or _place(info) != self._mine["place"]:
            return
        try:
            self._probe = load_probe(info[_KEY])
        except Exception as error:
            _warn_once("memory of a process in this place cannot be used, so that Dask sends values", error)
        await super().write({_KEY: self._probe is not None})
        answer = await super().read()
        self._shares = self._probe is not None and isinstance(answer, dict) and answer.get(_KEY) is True

    # -- messages

    async def write(self, msg: Any, serializers: Any = None, on_error: Any = "message") -> Any:
        """See Comm."""
        try:
            return await self._write(msg, serializers, on_error)
        except BaseException:
            if self.closed():
                self._leave()
            raise

    async def _write(self, msg: Any, serializers: Any, on_error: Any) -> Any:
        if not self._shares:
            return _told(await super().write(msg, serializers=serializers, on_error=on_error))
        frames = await to_frames(
            msg,
            allow_offload=self.allow_offload,
            serializers=serializers,
            on_error=on_error,
            context={"sender": self.local_info, "recipient": self.remote_info, **self.handshake_options},
            frame_split_size=_UNSPLIT,
        )
        if sum(map(nbytes, frames)) >= _OFFLOAD and self.allow_offload:
            parcel = await offload(make_parcel, frames, least_carried())
        else:
            parcel = make_parcel(frames, least_carried())
        rest = [f for f, handle in zip(frames, parcel.handles, strict=True) if handle is None]
        del frames
        if not parcel.nbytes:
            return _told(await _write_frames(self, [_NO_HANDLES, *rest]))
        if parcel.refused is not None:
            _warn_once("some large buffers are sent as bytes", parcel.refused)
        self._outbox.add(parcel)
        try:
            written = await _write_frames(self, [msgpack.packb(parcel.handles), *rest])
        except BaseException:
            self._outbox.withdraw(parcel)
            raise
        _tally["handles"] += len(parcel.handles) - len(rest)
        _tally["bytes"] += parcel.nbytes
        _tally["carried"] += parcel.carried
        return max(written + parcel.nbytes, _NOT_LOGGED)

    async def read(self, deserializers: Any = None) -> Any:
        """See Comm."""
        try:
            if not self._shares:
                msg = await super().read(deserializers=deserializers)
                if not self._greeted:
                    await self._greet(msg)
                return msg
            frames = await _read_frames(self)
        except BaseException:
            if self.closed():
                self._leave()
            raise
        self._outbox.tidy()
        frames = self._with_memory(frames)
        try:
            return await from_frames(
                frames,
                deserialize=self.deserialize,
                deserializers=deserializers,
                allow_offload=self.allow_offload,
            )
        except EOFError:
            self.abort()
            raise CommClosedError("aborted stream on truncated data") from None

    def _with_memory(self, frames: list[Any]) -> list[Any]:
        """The frames of a message, with memory in place of handles."""
        handles = msgpack.unpackb(frames[0])
        if handles is None:
            return frames[1:]
        try:
            opened = iter(_open([handle for handle in handles if handle is not None]))
        except Exception as error:
            self.abort()
            raise CommClosedError(
                f"in {self}: memory of the other end cannot be attached: {error}"
            ) from error
        rest = iter(frames[1:])
        return [next(rest) if handle is None else next(opened) for handle in handles]

    # -- the end

    def _leave(self) -> None:
        self._probe = None
        self._shares = False
        self._outbox.leave()
        if self.stream is None:
            self._forget_stream()

    def _forget_stream(self) -> None:
        """Let this object be collected after its stream has failed.

        Dask has a function called at the end of this object, which closes the stream. Until then the function
        is kept, and so is the stream with its error, whose traceback has the frames of who was writing or
        reading. They refer to this object and to the message, so that none of it would ever go.
        """
        finalizer = getattr(self, "_finalizer", None)
        if finalizer is not None:
            finalizer.detach()

    def close(self) -> Any:
        """See Comm."""
        self._leave()
        return super().close()

    def abort(self) -> None:
        """See Comm."""
        self._leave()
        super().abort()


class SharingTCP(_Sharing):
    """Dask's TCP."""


class SharingTLS(_Sharing, tcp.TLS):
    """Dask's TLS: handles are encrypted, and the memory is this user's alone."""


class SharingTCPConnector(tcp.TCPConnector):
    """Connects by `SharingTCP`."""

    comm_class = SharingTCP


class SharingTLSConnector(tcp.TLSConnector):
    """Connects by `SharingTLS`."""

    comm_class = SharingTLS


class SharingTCPListener(tcp.TCPListener):
    """Listens for `SharingTCP`."""

    comm_class = SharingTCP


class SharingTLSListener(tcp.TLSListener):
    """Listens for `SharingTLS`."""

    comm_class = SharingTLS


class _Backend:
    """What this library adds to Dask's backends: what a server that begins to listen needs."""

    def get_listener(self, loc: str, handle_comm: Any, deserialize: bool, **connection_args: Any) -> Any:
        """See Backend."""
        server = getattr(handle_comm, "__self__", None)
        dask_limits.follow_memory_limit(server)
        dask_limits.add_default_host(server, connection_args)
        dask_logs.keep_text_only(server)
        return super().get_listener(loc, handle_comm, deserialize, **connection_args)  # type: ignore[misc]


class SharingTCPBackend(_Backend, tcp.TCPBackend):
    """``tcp://``."""

    _connector_class = SharingTCPConnector
    _listener_class = SharingTCPListener


class SharingTLSBackend(_Backend, tcp.TLSBackend):
    """``tls://``."""

    _connector_class = SharingTLSConnector
    _listener_class = SharingTLSListener


class _OwnConnector(SharingTCPConnector):
    prefix = "sharedmem://"


class _OwnListener(SharingTCPListener):
    prefix = "sharedmem://"


class SharedMemoryBackend(SharingTCPBackend):
    """``sharedmem://``."""

    _connector_class = _OwnConnector
    _listener_class = _OwnListener
