from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

def attach(element: type[Any] | np.dtype[Any], lengths: Sequence[int], memory: NDArray[np.uint8]) -> Any: ...
