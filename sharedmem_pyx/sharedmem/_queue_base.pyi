from typing import Generic, TypeVar

_T = TypeVar("_T")

class Outgoing: ...

class _Base(Generic[_T]):
    @property
    def _closed(self) -> bool: ...
