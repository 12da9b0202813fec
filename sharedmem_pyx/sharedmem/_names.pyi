from collections.abc import Callable
from typing import Any

from numpy.typing import ArrayLike

from sharedmem.array import SharedArray

def attach(name: str, *, readonly: bool = False, timeout: float | None = 0) -> SharedArray[Any, Any]: ...
def get_or_create(
    name: str,
    build: Callable[[], ArrayLike],
    *,
    readonly: bool = True,
    timeout: float | None = None,
) -> SharedArray[Any, Any]: ...
def find_or_build(name: str, build: Callable[[], ArrayLike]) -> SharedArray[Any, Any]: ...
