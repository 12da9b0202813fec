"""Sizes: as texts, in environment variables and on the command line, and as arguments of functions."""

from __future__ import annotations

import operator
import re
from typing import Any

_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def read_size(text: str) -> int | None:
    """Parse a number of bytes such as "123456", "64KiB", "1.5G", "1GB" or "1e9"; None if it is not a size.

    1G and 1GiB are 2**30 bytes, 1GB is 10**9. `parse_size` in cpp/src/settings.cpp reads the variables of the
    C++ library by the same rule; a test compares the two. It is not called here, because it is not a part of
    the C++ library's interface, and its result is a floating-point number, which is not exact for large
    sizes.
    """
    found = re.fullmatch(
        r"\+?(?=\.?[0-9])([0-9]*)\.?([0-9]*)(?:[eE]([+-]?[0-9]{1,2}))?"  # the number
        r"\s*(?:([kKmMgGtT])([iI]?))?([bB]?)",
        text,
    )
    if found is None:
        return None
    whole, decimals, exponent, prefix, binary, bytes_ = found.groups()
    base = 1000 if bytes_ and not binary else 1024
    nbytes: int = int(whole + decimals) * base ** _POWERS[(prefix or "").upper()]
    shift = int(exponent or 0) - len(decimals)
    scale: int = 10 ** abs(shift)
    return nbytes * scale if shift >= 0 else nbytes // scale


def check_bytes(name: str, value: Any, least: int, bits: int) -> int:
    """Return an argument that is a number of bytes, from `least` on and of at most so many bits.

    Raises
    ------
    TypeError
        It is not an int, or is a bool, which is one to Python, and surely a mistake.
    ValueError
        It is out of range.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{name} must be a number of bytes, an int, not {value!r}")
    if not least <= number < 1 << bits:
        raise ValueError(f"{name} must be a number of bytes from {least} to 2**{bits} - 1, not {value!r}")
    return number
