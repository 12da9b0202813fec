from typing import Generic, NoReturn, TypedDict, TypeVar

_T = TypeVar("_T")

class _QueueStats(TypedDict):
    messages: int
    bytes: int
    unfinished: int
    memory: int
    kept: int
    maxsize: int
    receivers: list[int]
    senders: list[int]
    joiners: list[int]
    processes: list[int]
    pid: int
    seconds: float

class _Base(Generic[_T]):
    @property
    def _closed(self) -> bool: ...
    def __deepcopy__(self, memo: object) -> NoReturn: ...
    def stats(self) -> _QueueStats: ...
