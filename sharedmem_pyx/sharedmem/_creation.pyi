from typing import Any, Literal, SupportsIndex, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from sharedmem.array import SharedArray

_Scalar = TypeVar("_Scalar", bound=np.generic)
_Shape: TypeAlias = SupportsIndex | tuple[SupportsIndex, ...] | list[SupportsIndex]
_Order: TypeAlias = Literal["C", "F"]
_LikeOrder: TypeAlias = Literal["K", "A", "C", "F"]
_Of: TypeAlias = type[_Scalar] | np.dtype[_Scalar]
_Array: TypeAlias = SharedArray[tuple[Any, ...], np.dtype[_Scalar]]

@overload
def empty(
    shape: _Shape, dtype: type[float] | None = ..., order: _Order = "C", *, populate: bool | None = None
) -> _Array[np.float64]: ...
@overload
def empty(
    shape: _Shape, dtype: _Of[_Scalar], order: _Order = "C", *, populate: bool | None = None
) -> _Array[_Scalar]: ...
@overload
def empty(
    shape: _Shape, dtype: DTypeLike, order: _Order = "C", *, populate: bool | None = None
) -> SharedArray: ...
@overload
def zeros(
    shape: _Shape, dtype: type[float] | None = ..., order: _Order = "C", *, populate: bool | None = None
) -> _Array[np.float64]: ...
@overload
def zeros(
    shape: _Shape, dtype: _Of[_Scalar], order: _Order = "C", *, populate: bool | None = None
) -> _Array[_Scalar]: ...
@overload
def zeros(
    shape: _Shape, dtype: DTypeLike, order: _Order = "C", *, populate: bool | None = None
) -> SharedArray: ...
@overload
def ones(
    shape: _Shape, dtype: type[float] | None = ..., order: _Order = "C", *, populate: bool | None = None
) -> _Array[np.float64]: ...
@overload
def ones(
    shape: _Shape, dtype: _Of[_Scalar], order: _Order = "C", *, populate: bool | None = None
) -> _Array[_Scalar]: ...
@overload
def ones(
    shape: _Shape, dtype: DTypeLike, order: _Order = "C", *, populate: bool | None = None
) -> SharedArray: ...
@overload
def full(
    shape: _Shape,
    fill_value: ArrayLike,
    dtype: _Of[_Scalar],
    order: _Order = "C",
    *,
    populate: bool | None = None,
) -> _Array[_Scalar]: ...
@overload
def full(
    shape: _Shape,
    fill_value: ArrayLike,
    dtype: DTypeLike | None = None,
    order: _Order = "C",
    *,
    populate: bool | None = None,
) -> SharedArray: ...
def empty_like(
    prototype: ArrayLike,
    dtype: DTypeLike | None = None,
    order: _LikeOrder = "K",
    subok: bool = True,
    shape: _Shape | None = None,
) -> SharedArray: ...
def zeros_like(
    a: ArrayLike,
    dtype: DTypeLike | None = None,
    order: _LikeOrder = "K",
    subok: bool = True,
    shape: _Shape | None = None,
) -> SharedArray: ...
def ones_like(
    a: ArrayLike,
    dtype: DTypeLike | None = None,
    order: _LikeOrder = "K",
    subok: bool = True,
    shape: _Shape | None = None,
) -> SharedArray: ...
def full_like(
    a: ArrayLike,
    fill_value: ArrayLike,
    dtype: DTypeLike | None = None,
    order: _LikeOrder = "K",
    subok: bool = True,
    shape: _Shape | None = None,
) -> SharedArray: ...
