from collections.abc import Iterator
from pickle import PickleBuffer
from typing import final

import numpy as np
from typing_extensions import Self

from sharedmem.array import SharedArray

_Bytes = SharedArray[tuple[int], np.dtype[np.uint8]]

def gather(buffers: list[PickleBuffer]) -> tuple[list[_Bytes | None], bytes]: ...

@final
class Gathering: ...

@final
class Pieces(Iterator[np.ndarray[tuple[int], np.dtype[np.uint8]]]):
    def __new__(cls, sources: list[_Bytes | None], table: bytes) -> Self: ...
    def __next__(self) -> np.ndarray[tuple[int], np.dtype[np.uint8]]: ...
