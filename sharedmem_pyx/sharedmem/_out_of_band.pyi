from typing import Any, SupportsIndex, final

import numpy as np
from typing_extensions import Buffer

def reduce_array(a: np.ndarray[Any, Any]) -> tuple[Any, ...]: ...
def restore_array(
    buffer: Buffer,
    dtype: np.dtype[Any],
    shape: tuple[SupportsIndex, ...],
    strides: str | tuple[SupportsIndex, ...] | None,
    /,
) -> np.ndarray[Any, Any]: ...

@final
class LeftOut: ...
