from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NoReturn, final

import numpy as np
from typing_extensions import ParamSpec, TypeVar

from sharedmem._legacy import shared_empty as shared_empty
from sharedmem._legacy import shared_ones as shared_ones
from sharedmem._legacy import shared_zeros as shared_zeros

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Shape_co = TypeVar("_Shape_co", bound=tuple[int, ...], default=tuple[Any, ...], covariant=True)
_DType_co = TypeVar("_DType_co", bound=np.dtype[Any], default=np.dtype[Any], covariant=True)

by_value: ContextVar[bool]
current_message: ContextVar[Message | None]

@final
class Message: ...

@final
class Keeper: ...

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
def holding(dump: Callable[_P, _R]) -> Callable[_P, _R]: ...
def dumping_alone(pickler: type[Any]) -> Any: ...
def _load(
    state: bytes, dtype: np.dtype[Any] | None = None, cls: type[SharedArray] | None = None
) -> SharedArray: ...
def _load_kept(
    state: bytes,
    keeper: SharedArray,
    dtype: np.dtype[Any] | None = None,
    cls: type[SharedArray] | None = None,
) -> SharedArray: ...
def _drop(state: bytes) -> None: ...
