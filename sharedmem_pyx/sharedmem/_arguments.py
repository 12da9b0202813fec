"""Arguments of compiled classes, whose own errors would mention methods that users do not call."""

from collections.abc import Mapping, Sequence
from typing import Any


def read_arguments(
    kind: str,
    args: Sequence[Any],
    keywords: Mapping[str, Any],
    places: Sequence[str] = (),
    names: Sequence[str] = (),
) -> dict[str, Any]:
    """The arguments that were given, by name.

    Parameters
    ----------
    kind : str
        The class that is called.
    args, keywords : tuple, dict
        What it was called with.
    places : sequence of str
        Names of the arguments that may be given by their position.
    names : sequence of str
        Of those that can be given by name only.

    Returns
    -------
    dict
        Without those that were not given.

    Raises
    ------
    TypeError
        There are too many or unknown ones; the text has the names of those that fit.
    """
    known = f"it takes {_listed([*places, *(f'{name}=' for name in names)])}"
    if len(args) > len(places):
        most = f"at most {len(places)}" if places else "no"
        raise TypeError(
            f"{kind}() takes {most} positional argument{'s' * (len(places) != 1)} "
            f"({len(args)} given); {known}"
        )
    found = dict(zip(places, args, strict=False))
    for name, value in keywords.items():
        if name not in places and name not in names:
            raise TypeError(f"{kind}() got an unexpected keyword argument {name!r}; {known}")
        if name in found:
            raise TypeError(f"{kind}() got multiple values for argument {name!r}")
        found[name] = value
    return found


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]])) or "none"
