"""Where the data comes from: a ``.npy`` file, or a stack of images made on the spot."""

from __future__ import annotations

import math
import os
from typing import Any, Literal, Protocol, cast

import numpy as np


class InputError(ValueError):
    """What the user asked for cannot be done; the message is one line that says why."""


class Source(Protocol):
    """Numbers that any process can read, part by part, in the order of memory."""

    shape: tuple[int, ...]
    dtype: np.dtype
    order: Literal["C", "F"]
    grain: int  #: parts begin at multiples of this many elements

    def read(self, first: int, out: np.ndarray) -> None:
        """Fills the one-dimensional `out` with the elements from number `first` on."""

    def __str__(self) -> str: ...


class Stack:
    """Images of rings that drift, 16 bits a pixel; the same ones in every process.

    Parameters
    ----------
    nbytes : int
        Size wanted; the stack is as many whole images as fit.
    """

    order: Literal["C", "F"] = "C"
    dtype: np.dtype = np.dtype(np.uint16)

    def __init__(self, nbytes: int) -> None:
        edge = 1024 if nbytes >= 2**26 else 256
        self.grain = edge * edge
        count = nbytes // (self.grain * self.dtype.itemsize)
        if count < 1:
            least = self.grain * self.dtype.itemsize
            raise InputError(f"--size: {nbytes} bytes hold no image; {least} bytes hold one")
        self.shape: tuple[int, ...] = (count, edge, edge)
        self._scene: np.ndarray | None = None

    def __str__(self) -> str:
        count, height, width = self.shape
        images = "image" if count == 1 else "images"
        return f"{count} {images} of {height} x {width} pixels, {self.dtype}"

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_scene": None}  # each process makes its own

    def _view(self) -> np.ndarray:
        if self._scene is None:
            edge = self.shape[1]
            square = np.arange(-edge // 2, edge // 2, dtype=np.int32) ** 2
            rings = square[:, None] + square
            self._scene = rings.astype(self.dtype).ravel()  # wraps round
        return self._scene

    def read(self, first: int, out: np.ndarray) -> None:
        scene, grain = self._view(), self.grain
        for at in range(0, out.size, grain):
            cut = (first + at) // grain * 37 * self.shape[2] % grain
            image = out[at : at + grain]
            image[: grain - cut] = scene[cut:]
            image[grain - cut :] = scene[:cut]


class NpyFile:
    """Array in a ``.npy`` file, read by each process for itself.

    Parameters
    ----------
    path : str
        File of integers or floating-point numbers.
    """

    def __init__(self, path: str) -> None:
        found = _map(path)
        if found.dtype.kind not in "iuf":
            raise InputError(f"{path}: its dtype is {found.dtype}; the demo brightens integers and floats")
        if found.size == 0:
            raise InputError(f"{path}: an array of shape {found.shape} has no elements")
        self.path, self.shape, self.dtype = path, found.shape, found.dtype
        self.order: Literal["C", "F"] = "C" if found.flags.c_contiguous else "F"
        self.grain = 1
        self._offset = found.offset

    def __str__(self) -> str:
        return f"{self.path}: shape {self.shape}, {self.dtype}"

    def read(self, first: int, out: np.ndarray) -> None:
        with open(self.path, "rb", buffering=0) as file:
            file.seek(self._offset + first * self.dtype.itemsize)
            rest = memoryview(cast("Any", out.view(np.uint8)))
            while rest:
                count = file.readinto(rest)
                if not count:
                    raise OSError(f"{self.path} became shorter while it was read")
                rest = rest[count:]


def _map(path: str) -> np.memmap:
    """The array of a ``.npy`` file, mapped and read-only."""
    try:
        if not os.path.isfile(path):
            os.stat(path)
            raise InputError(f"{path}: not a file")
        with open(path, "rb") as file:
            magic = file.read(len(np.lib.format.MAGIC_PREFIX))
        if magic.startswith(b"PK"):
            raise InputError(f"{path}: an archive of arrays, not a .npy file with one array")
        if magic != np.lib.format.MAGIC_PREFIX:
            raise InputError(f"{path}: not a .npy file")
        found: np.memmap = np.load(path, mmap_mode="r", allow_pickle=False)
        return found
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # NumPy's parser of headers raises many kinds
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a .npy file to work on: {reason}") from None


def nbytes(source: Source) -> int:
    """Bytes of all elements of `source`."""
    return math.prod(source.shape) * source.dtype.itemsize
