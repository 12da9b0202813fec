from typing import Any

import numpy as np

from sharedmem.array import SharedArray

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
