from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, DTypeLike
from typing_extensions import Buffer

__all__ = ["create", "create_copy", "ones", "shmarray", "zeros"]

_Shape = SupportsIndex | Sequence[SupportsIndex]

class shmarray(np.ndarray[Any, np.dtype[Any]]):
    def __new__(
        cls,
        ctypesArray: Buffer,
        shape: _Shape,
        dtype: DTypeLike = ...,
        strides: Sequence[int] | None = None,
        offset: int = 0,
        order: str | None = None,
    ) -> shmarray: ...
    @property
    def ctypesArray(self) -> Any: ...

def create(shape: _Shape, dtype: DTypeLike = "d", alignment: SupportsIndex = 32) -> shmarray: ...
def zeros(shape: _Shape, dtype: DTypeLike = "d") -> shmarray: ...
def ones(shape: _Shape, dtype: DTypeLike = "d") -> shmarray: ...
def create_copy(a: ArrayLike) -> shmarray: ...
