"""What the workers do to the array, and how another process checks it."""

from __future__ import annotations

import numpy as np

from sharedmem._cli.demo.source import Source

#: Elements worked on at a time: what NumPy needs in between stays in the processor's cache.
_BLOCK = 1 << 16


def brighten(pixels: np.ndarray) -> None:
    """Gamma correction in place: a value x of at most top becomes top * sqrt(x / top).

    Floating-point numbers become their square roots. A sign is kept. Each element depends on
    itself alone and each step rounds correctly, so the bits of the result are the same in
    whatever parts the work is done.

    Parameters
    ----------
    pixels : ndarray, one-dimensional
        Integers or floating-point numbers.
    """
    with np.errstate(invalid="ignore"):  # a nan stays one
        for first in range(0, pixels.size, _BLOCK):
            _brighten_block(pixels[first : first + _BLOCK])


def _brighten_block(block: np.ndarray) -> None:
    kind, itemsize = block.dtype.kind, block.dtype.itemsize
    if kind == "f":
        np.copysign(np.sqrt(np.abs(block)), block, out=block)
        return
    wide = np.float32 if itemsize <= 2 else np.float64
    top = wide(np.iinfo(block.dtype).max)
    if int(top) > np.iinfo(block.dtype).max:
        top = np.nextafter(top, wide(0))  # the float next to 2**64 - 1 is 2**64: no longer fits
    x = block.astype(wide)
    y = np.abs(x)
    y *= top
    np.sqrt(y, out=y)
    np.rint(y, out=y)
    np.minimum(y, top, out=y)
    if kind == "i":
        np.copysign(y, x, out=y)
    block[...] = y.astype(block.dtype)


class Brighten:
    """The work of a worker process."""

    def __call__(self, first: int, part: np.ndarray) -> None:
        brighten(part)


class Check:
    """The work of the process that checks: NumPy does it all again in that one process."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __call__(self, first: int, part: np.ndarray) -> str | None:
        """Says where `part`, the elements from number `first` on, is wrong; None: nowhere."""
        grain = self.source.grain
        step = grain * max(1, 16 * _BLOCK // grain)
        for at in range(0, part.size, step):
            got = part[at : at + step]
            wanted = np.empty(got.size, self.source.dtype)  # pickle makes it native
            self.source.read(first + at, wanted)
            brighten(wanted)
            if not np.array_equal(got, wanted, equal_nan=got.dtype.kind == "f"):
                wrong = (got != wanted) & ((got == got) | (wanted == wanted))
                i = int(wrong.argmax())
                return f"element {first + at + i} is {got[i]} instead of {wanted[i]}"
        return None
