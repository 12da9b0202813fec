"""What the processes of the demo do: they brighten images, and one checks them all."""

from __future__ import annotations

import ctypes
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

Shape = tuple[int, int, int]  # images, rows, columns

_inherited: np.ndarray | None = None


def draw(first: int, images: np.ndarray) -> None:
    """Fills `images`, which are those from number `first` on, with rings that drift from image to image."""
    edge = images.shape[-1]
    square = np.arange(-edge // 2, edge // 2, dtype=np.int32) ** 2
    rings = (square[:, None] + square).astype(images.dtype)  # wraps round
    for number, image in enumerate(images, start=first):
        image[...] = np.roll(rings, 37 * number, axis=0)


def brighten(images: np.ndarray) -> None:
    """Gamma correction in place: a pixel x becomes sqrt(x * top), where top is the largest value."""
    top = np.float32(np.iinfo(images.dtype).max)
    for image in images:
        image[...] = np.rint(np.sqrt(image * top))


def first_wrong(first: int, images: np.ndarray) -> str | None:
    """Where `images`, those from number `first` on, differ from what NumPy alone makes; None: nowhere."""
    for number, image in enumerate(images, start=first):
        wanted = np.empty((1, *image.shape), image.dtype)
        draw(number, wanted)
        brighten(wanted)
        if not np.array_equal(image, wanted[0]):
            row, column = np.argwhere(image != wanted[0])[0]
            return (
                f"pixel ({row}, {column}) of image {number} is {image[row, column]} "
                f"instead of {wanted[0, row, column]}"
            )
    return None


def begin(memory: Any, shape: Shape, dtype: np.dtype) -> None:
    """Prepares a worker process. `memory`: what it inherits, or None."""
    global _inherited
    # Ctrl-C reaches all processes of a terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if memory is not None:
        _inherited = np.frombuffer(memory, dtype).reshape(shape)


def ready() -> None:
    """The first task of a worker."""


def brighten_part(first: int, count: int, images: np.ndarray | None, back: bool) -> np.ndarray | None:
    """Brightens images that were sent, or `count` inherited ones; `back`: sends them back."""
    images = _part(first, count, images)
    brighten(images)
    return images if back else None


def check_part(first: int, count: int, images: np.ndarray | None) -> str | None:
    """What `first_wrong` says of images that were sent, or of inherited ones."""
    return first_wrong(first, _part(first, count, images))


def _part(first: int, count: int, images: np.ndarray | None) -> np.ndarray:
    if images is not None:
        return images
    assert _inherited is not None
    return _inherited[first : first + count]


def trim() -> None:
    """Gives back what malloc keeps for later, which would count as memory in use."""
    if sys.platform == "win32":
        return
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if malloc_trim is not None:
        malloc_trim(0)


def resident(pids: list[int]) -> int:
    """Bytes of memory of some processes together; a page that several of them map counts once.

    The sum of their proportional set sizes (Pss) [1]_. 0 on Windows, which does not tell.

    References
    ----------
    .. [1] Linux, Documentation/filesystems/proc.rst, /proc/PID/smaps_rollup.
    """
    total = 0
    for pid in pids if sys.platform == "linux" else ():
        for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                total += int(line.split()[1]) * 1024
    return total
