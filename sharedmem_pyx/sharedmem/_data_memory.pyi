from types import TracebackType
from typing import final

from typing_extensions import Self

@final
class allocator:
    def __new__(cls, *, zeros: bool = False) -> Self: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
