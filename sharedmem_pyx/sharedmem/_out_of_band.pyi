from collections.abc import Iterator
from pickle import PickleBuffer
from typing import Any, SupportsIndex, final

import numpy as np
from typing_extensions import Buffer, Self

from sharedmem.array import SharedArray

_Bytes = SharedArray[tuple[int], np.dtype[np.uint8]]

def reduce_array(a: np.ndarray[Any, Any]) -> tuple[Any, ...]: ...
def restore_array(
    buffer: Buffer,
    dtype: np.dtype[Any],
    shape: tuple[SupportsIndex, ...],
    strides: str | tuple[SupportsIndex, ...] | None,
    /,
) -> np.ndarray[Any, Any]: ...
def gather(buffers: list[PickleBuffer]) -> tuple[list[_Bytes | None], bytes]: ...

@final
class LeftOut: ...

@final
class Gathering: ...

@final
class Pieces(Iterator[np.ndarray[tuple[int], np.dtype[np.uint8]]]):
    def __new__(cls, sources: list[_Bytes | None], table: bytes) -> Self: ...
    def __next__(self) -> np.ndarray[tuple[int], np.dtype[np.uint8]]: ...
