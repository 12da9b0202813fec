"""Headers of ``.npy`` files: reading them from memory and writing them to memory instead of files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from sharedmem._file_memory import FileMemory


class BytesReader:
    """Reads the first bytes of a mapped file."""

    def __init__(self, memory: FileMemory) -> None:
        self._bytes = memoryview(memory)
        self.at = 0

    def read(self, size: int) -> bytes:
        piece = bytes(self._bytes[self.at : self.at + size])
        self.at += len(piece)
        return piece


def npy_header(shape: tuple[int, ...], fortran_order: bool, dtype: np.dtype[Any]) -> bytes:
    """The header of a file with such an array, in the oldest version of the format that can describe it."""
    fields = {
        "shape": shape,
        "fortran_order": bool(fortran_order),
        "descr": np.lib.format.dtype_to_descr(dtype),
    }
    file = io.BytesIO()
    try:
        np.lib.format.write_array_header_1_0(file, fields)
    except UnicodeEncodeError:
        # Names of fields are beyond Latin-1: this takes version 3, for which NumPy has no public writer.
        text = repr(dict(sorted(fields.items()))).encode()
        text += b" " * (-(len(text) + 13) % 64) + b"\n"
        return np.lib.format.magic(3, 0) + len(text).to_bytes(4, "little") + text
    except ValueError:  # longer than 64 KiB
        file = io.BytesIO()
        np.lib.format.write_array_header_2_0(file, fields)
    return file.getvalue()
