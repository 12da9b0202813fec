from collections.abc import Sequence
from typing import Any, Literal, SupportsIndex

from numpy.typing import ArrayLike, DTypeLike

from sharedmem.array import SharedArray

def empty(
    shape: SupportsIndex | Sequence[SupportsIndex],
    dtype: DTypeLike | None = float,
    order: Literal["C", "F"] = "C",
    *,
    populate: bool | None = None,
) -> SharedArray[Any, Any]: ...
def zeros(
    shape: SupportsIndex | Sequence[SupportsIndex],
    dtype: DTypeLike | None = float,
    order: Literal["C", "F"] = "C",
    *,
    populate: bool | None = None,
) -> SharedArray[Any, Any]: ...
def ones(
    shape: SupportsIndex | Sequence[SupportsIndex],
    dtype: DTypeLike | None = float,
    order: Literal["C", "F"] = "C",
    *,
    populate: bool | None = None,
) -> SharedArray[Any, Any]: ...
def full(
    shape: SupportsIndex | Sequence[SupportsIndex],
    fill_value: Any,
    dtype: DTypeLike | None = None,
    order: Literal["C", "F"] = "C",
    *,
    populate: bool | None = None,
) -> SharedArray[Any, Any]: ...
def empty_like(
    prototype: ArrayLike,
    dtype: DTypeLike | None = None,
    order: Literal["K", "A", "C", "F"] = "K",
    subok: bool = True,
    shape: SupportsIndex | Sequence[SupportsIndex] | None = None,
) -> SharedArray[Any, Any]: ...
def zeros_like(
    a: ArrayLike,
    dtype: DTypeLike | None = None,
    order: Literal["K", "A", "C", "F"] = "K",
    subok: bool = True,
    shape: SupportsIndex | Sequence[SupportsIndex] | None = None,
) -> SharedArray[Any, Any]: ...
def ones_like(
    a: ArrayLike,
    dtype: DTypeLike | None = None,
    order: Literal["K", "A", "C", "F"] = "K",
    subok: bool = True,
    shape: SupportsIndex | Sequence[SupportsIndex] | None = None,
) -> SharedArray[Any, Any]: ...
def full_like(
    a: ArrayLike,
    fill_value: Any,
    dtype: DTypeLike | None = None,
    order: Literal["K", "A", "C", "F"] = "K",
    subok: bool = True,
    shape: SupportsIndex | Sequence[SupportsIndex] | None = None,
) -> SharedArray[Any, Any]: ...
