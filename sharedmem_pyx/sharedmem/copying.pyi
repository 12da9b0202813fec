from typing import Any, Literal

from numpy.typing import ArrayLike, DTypeLike

from sharedmem.array import SharedArray

def array(
    obj: ArrayLike, dtype: DTypeLike | None = None, order: Literal["K", "A", "C", "F"] = "K", *, ndmin: int = 0
) -> SharedArray[Any, Any]: ...
def copy(a: ArrayLike, order: Literal["K", "A", "C", "F"] = "K") -> SharedArray[Any, Any]: ...
def asshared(
    a: ArrayLike, dtype: DTypeLike | None = None, order: Literal["K", "A", "C", "F"] | None = None
) -> SharedArray[Any, Any]: ...
