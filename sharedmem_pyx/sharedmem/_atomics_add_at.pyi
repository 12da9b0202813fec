from typing import Any

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[Any]

def add_at(a: _Array, indices: Any, values: npt.ArrayLike, /) -> None: ...
def offsets_of(a: _Array, indices: Any) -> npt.NDArray[np.intp]: ...
