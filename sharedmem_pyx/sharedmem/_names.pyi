from collections.abc import Callable
from typing import Any, Literal

from numpy.typing import ArrayLike, DTypeLike

from sharedmem._naming import NameInfo
from sharedmem.array import SharedArray

def create(
    name: str,
    shape: int | tuple[int, ...],
    dtype: DTypeLike = ...,
    order: Literal["C", "F"] = "C",
) -> SharedArray[Any, Any]: ...
def attach(name: str, *, readonly: bool = False, timeout: float | None = 0) -> SharedArray[Any, Any]: ...
def unlink(name: str, *, missing_ok: bool = False) -> None: ...
def names() -> list[NameInfo]: ...
def get_or_create(
    name: str,
    build: Callable[[], ArrayLike],
    *,
    readonly: bool = True,
    timeout: float | None = None,
) -> SharedArray[Any, Any]: ...
def info_of(
    name: bytes, what: int, text: bytes, pid: int, seconds: float, holders: tuple[int, ...]
) -> NameInfo: ...
