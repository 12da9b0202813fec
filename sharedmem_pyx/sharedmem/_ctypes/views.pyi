from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

__all__ = ["as_ctypes", "shmem_as_ndarray"]

def as_ctypes(a: NDArray[Any]) -> Any: ...
def shmem_as_ndarray(
    raw_array: Any, shape: SupportsIndex | Sequence[SupportsIndex] | None = None
) -> np.ndarray[Any, np.dtype[Any]]: ...
