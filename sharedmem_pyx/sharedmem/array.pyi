from typing import Any, NoReturn

import numpy as np
from typing_extensions import TypeVar

from sharedmem._handles import _load as _load
from sharedmem._handles import _load_kept as _load_kept
from sharedmem._legacy import shared_empty as shared_empty
from sharedmem._legacy import shared_ones as shared_ones
from sharedmem._legacy import shared_zeros as shared_zeros

_Shape_co = TypeVar("_Shape_co", bound=tuple[int, ...], default=tuple[Any, ...], covariant=True)
_DType_co = TypeVar("_DType_co", bound=np.dtype[Any], default=np.dtype[Any], covariant=True)

class SharedArray(np.ndarray[_Shape_co, _DType_co]):
    def __new__(cls, *args: Any, **keywords: Any) -> NoReturn: ...
    def __array_wrap__(
        self, array: np.ndarray[Any, Any], context: Any = None, return_scalar: bool = False, /
    ) -> Any: ...
    def __setstate__(self, state: tuple[Any, ...], /) -> None: ...
    def setflags(
        self, write: bool | None = None, align: bool | None = None, uic: bool | None = None
    ) -> None: ...

def is_shared(a: object, /) -> bool: ...
