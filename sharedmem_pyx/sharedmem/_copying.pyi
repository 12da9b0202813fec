from typing import Any, Literal, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from sharedmem.array import SharedArray

_Scalar = TypeVar("_Scalar", bound=np.generic)
_Shape = TypeVar("_Shape", bound=tuple[int, ...])
_Order: TypeAlias = Literal["K", "A", "C", "F"]
_Of: TypeAlias = type[_Scalar] | np.dtype[_Scalar]

@overload
def array(
    obj: ArrayLike, dtype: _Of[_Scalar], order: _Order = "K", *, ndmin: int = 0
) -> SharedArray[tuple[Any, ...], np.dtype[_Scalar]]: ...
@overload
def array(
    obj: ArrayLike, dtype: DTypeLike | None = None, order: _Order = "K", *, ndmin: int = 0
) -> SharedArray: ...
@overload
def copy(
    a: np.ndarray[_Shape, np.dtype[_Scalar]], order: _Order = "K"
) -> SharedArray[_Shape, np.dtype[_Scalar]]: ...
@overload
def copy(a: ArrayLike, order: _Order = "K") -> SharedArray: ...
@overload
def asshared(
    a: np.ndarray[_Shape, np.dtype[_Scalar]], dtype: None = None, order: _Order | None = None
) -> SharedArray[_Shape, np.dtype[_Scalar]]: ...
@overload
def asshared(
    a: ArrayLike, dtype: _Of[_Scalar], order: _Order | None = None
) -> SharedArray[tuple[Any, ...], np.dtype[_Scalar]]: ...
@overload
def asshared(a: ArrayLike, dtype: DTypeLike | None = None, order: _Order | None = None) -> SharedArray: ...
