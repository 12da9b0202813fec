from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Shape = TypeVar("_Shape", bound=tuple[int, ...], default=tuple[Any, ...], covariant=True)
