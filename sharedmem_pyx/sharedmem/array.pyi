from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NoReturn, ParamSpec, TypeVar, final

import numpy as np

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Shape = TypeVar("_Shape", bound=tuple[Any, ...], covariant=True)
_DType = TypeVar("_DType", bound=np.dtype[Any], covariant=True)

by_value: ContextVar[bool]

class SharedArray(np.ndarray[_Shape, _DType]):
    def __new__(cls, *args: Any, **kwargs: Any) -> NoReturn: ...

def is_shared(a: object, /) -> bool: ...
def holding(dump: Callable[_P, _R]) -> Callable[_P, _R]: ...
