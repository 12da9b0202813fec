from typing import Generic, NoReturn, TypedDict, TypeVar

_T = TypeVar("_T")

class _QueueStats(TypedDict):
    messages: int
    bytes: int
    unfinished: int
    memory: int
    maxsize: int
    receivers: list[int]
    senders: list[int]
    joiners: list[int]

class Outgoing: ...

class _Base(Generic[_T]):
    @property
    def _closed(self) -> bool: ...
    def __deepcopy__(self, memo: object) -> NoReturn: ...
    def stats(self) -> _QueueStats: ...

def queue_stats() -> list[_QueueStats]: ...
