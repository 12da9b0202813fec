from typing import Any, Literal

from numpy.typing import DTypeLike

from sharedmem.array import SharedArray

def create(
    name: str,
    shape: int | tuple[int, ...],
    dtype: DTypeLike = ...,
    order: Literal["C", "F"] = "C",
) -> SharedArray[Any, Any]: ...
def unlink(name: str, *, missing_ok: bool = False) -> None: ...
