from typing import Any, TypedDict

from sharedmem._naming import NameInfo
from sharedmem._queue_base import _QueueStats
from sharedmem._transfers.reducing import _TransportStats

class _Stats(TypedDict):
    live_bytes: int
    live_blocks: int
    shared_bytes: int
    shared_blocks: int
    cached_bytes: int
    mapped_bytes: int
    arena_bytes: int
    available_bytes: int
    participants: int
    segments: int
    leases: int
    bytes_in_flight: int
    oldest_in_flight: float
    attached_arenas: int
    cache_limit: int
    transport: _TransportStats
    queues: list[_QueueStats]
    arena: str | None
    backing: str | None

class _Participant(TypedDict):
    slot: int
    pid: int
    state: str
    chunks: int
    bytes: int
    leases: int
    bytes_in_flight: int
    oldest_in_flight: float
    self: bool

class _Inspection(TypedDict):
    arena: str
    segments: int
    cached_bytes: int
    cache_limit: int
    leases: int
    bytes_in_flight: int
    oldest_in_flight: float
    participants: list[_Participant]
    names: list[NameInfo] | None
    queues: list[dict[str, Any]]

def stats() -> _Stats: ...
def participants() -> list[_Participant]: ...
def inspect_arena(backing_name: str, id: int, pid: int = 0, tag: int = 0) -> _Inspection | None: ...
