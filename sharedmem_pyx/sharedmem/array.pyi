from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NoReturn, ParamSpec, TypeVar

import numpy as np
from typing_extensions import TypeVar as _TypeVar

