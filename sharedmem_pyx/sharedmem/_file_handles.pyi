from typing import Any

import numpy as np

from sharedmem.array import SharedArray

def reduce_mapped(a: np.ndarray[Any, Any]) -> tuple[Any, ...] | None: ...
def load_mapped(
    state: bytes, dtype: np.dtype[Any] | None = None, cls: type[SharedArray] | None = None
) -> SharedArray: ...
