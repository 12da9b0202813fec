from typing import Any

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[Any]
_Index = int | np.integer[Any] | tuple[int | np.integer[Any], ...]
_Value = int | float | bool | np.number[Any] | np.bool_

def wait(a: _Array, index: _Index, value: _Value, timeout: float | None = None) -> bool: ...
def notify(a: _Array, index: _Index, count: int | None = None) -> int: ...
def end_of_wait(timeout: float | None) -> float: ...
