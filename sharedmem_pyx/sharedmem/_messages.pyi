from collections.abc import Callable
from contextvars import ContextVar
from typing import NoReturn, TypeVar, final

from typing_extensions import ParamSpec

_P = ParamSpec("_P")
_R = TypeVar("_R")

by_value: ContextVar[bool]
current_message: ContextVar[Message | None]

@final
class Message: ...

@final
class Keeper: ...

def no_deep_copy(self: object, memo: object) -> NoReturn: ...
def holding(dump: Callable[_P, _R]) -> Callable[_P, _R]: ...
