"""Locks, events, conditions and Latest by name: their bytes are made once on a host, as named arrays."""

from collections.abc import Callable
from typing import Any

from sharedmem._creation import zeros
from sharedmem._names import find_or_build
from sharedmem._naming import dtype_of_kind, kind_of


def named_memory(name: str, kind: str, nbytes: int, begin: Callable[[Any], object]) -> Any:
    """The bytes of the object of that name, which all processes of the host share.

    Parameters
    ----------
    name : str
        As for `get_or_create`.
    kind : str
        The class of this package that it is.
    nbytes : int
        How many bytes it has.
    begin : callable
        Turns that many zeroed bytes into a new object. Exactly one process calls it.

    Returns
    -------
    SharedArray
        Of uint8. The name lives as long as it does, anywhere.

    Raises
    ------
    ValueError
        The name refers to something else.
    """
    wanted = dtype_of_kind(kind, nbytes)

    def build() -> Any:
        made = zeros(1, wanted)
        begin(made.view("u1"))
        return made

    found = find_or_build(name, build)
    if found.dtype != wanted or found.shape != (1,):
        there = kind_of(found.dtype)
        said = f"an array, {found.dtype} {found.shape}" if there == "array" else f"a sharedmem.{there}"
        raise ValueError(f"the name {name!r} refers to {said}, not to a sharedmem.{kind}")
    return found.view("u1")
