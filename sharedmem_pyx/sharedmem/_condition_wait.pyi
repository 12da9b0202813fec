from typing import Any

from sharedmem.lock import Lock, RLock

def sleep_without(lock: RLock | Lock, words: Any, timeout: float | None) -> bool: ...
