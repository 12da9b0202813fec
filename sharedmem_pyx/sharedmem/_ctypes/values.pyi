import ctypes
from collections.abc import Sequence
from typing import Any, Literal, SupportsIndex, TypeVar, overload

from numpy.typing import NDArray

from sharedmem.lock import RLock

__all__ = ["Array", "RawArray", "RawValue", "Value"]

_T = TypeVar("_T", bound=ctypes._CDataType)
_Elements = SupportsIndex | Sequence[Any] | NDArray[Any]
_Lock = bool | RLock | Any | None

@overload
def RawArray(typecode_or_type: type[_T], size_or_initializer: _Elements) -> ctypes.Array[_T]: ...
@overload
def RawArray(typecode_or_type: str, size_or_initializer: _Elements) -> ctypes.Array[Any]: ...
@overload
def RawValue(typecode_or_type: type[_T], *args: Any) -> _T: ...
@overload
def RawValue(typecode_or_type: str, *args: Any) -> Any: ...
@overload
def Array(
    typecode_or_type: type[_T], size_or_initializer: _Elements, *, lock: Literal[False]
) -> ctypes.Array[_T]: ...
@overload
def Array(
    typecode_or_type: str | type[Any], size_or_initializer: _Elements, *, lock: _Lock = True
) -> Any: ...
@overload
def Value(typecode_or_type: type[_T], *args: Any, lock: Literal[False]) -> _T: ...
@overload
def Value(typecode_or_type: str | type[Any], *args: Any, lock: _Lock = True) -> Any: ...
