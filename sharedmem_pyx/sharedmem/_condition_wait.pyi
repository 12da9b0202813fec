from types import TracebackType
from typing import Any

from sharedmem.lock import Lock, RLock

class WithLock:
    _lock: RLock | Lock
    def __enter__(self) -> bool: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

def sleep_without(lock: RLock | Lock, words: Any, timeout: float | None) -> bool: ...
