from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar, final

from typing_extensions import ParamSpec

_P = ParamSpec("_P")
_R = TypeVar("_R")

by_value: ContextVar[bool]
current_message: ContextVar[Message | None]

@final
class Message: ...

@final
class Keeper: ...

def holding(dump: Callable[_P, _R]) -> Callable[_P, _R]: ...
def dumping_alone(pickler: type[Any]) -> Any: ...
