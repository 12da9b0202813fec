"""Sizes as texts, in environment variables and on the command line."""

from __future__ import annotations

import re

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
