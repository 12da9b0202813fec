from typing import Any, TypeVar, overload

import numpy as np

from sharedmem.array import SharedArray

_Shared = TypeVar("_Shared", bound=SharedArray[Any, Any])
_Shape = TypeVar("_Shape", bound=tuple[int, ...])
_DType = TypeVar("_DType", bound=np.dtype[Any])

@overload
def readonly(a: _Shared, /) -> _Shared: ...
@overload
def readonly(a: np.ndarray[_Shape, _DType], /) -> SharedArray[_Shape, _DType]: ...
