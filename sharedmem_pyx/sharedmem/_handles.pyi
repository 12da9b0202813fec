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
def _load_exact(state: bytes, dtype: np.dtype[Any] | None = None) -> np.ndarray[Any, Any]: ...
def _load_exact_kept(
    state: bytes, keeper: SharedArray, dtype: np.dtype[Any] | None = None
) -> np.ndarray[Any, Any]: ...
def _drop(state: bytes) -> None: ...
