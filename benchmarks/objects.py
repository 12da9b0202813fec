"""Whole objects that the cases send, made by those libraries that are installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


def frame(nbytes: int) -> Any:
    """Ten columns of float64, each an array of its own."""
    import pandas

    columns = {f"column {i}": np.full(nbytes // 80, float(i)) for i in range(10)}
    return pandas.DataFrame(columns, copy=False)


def text(nbytes: int) -> Any:
    """A column of text as Arrow stores it, about a hundred bytes for each of its rows."""
    import pandas

    rows = [f"row {i:09d} " + "." * 80 for i in range(nbytes // 100)]
    return pandas.Series(rows, dtype="string[pyarrow]")


def sparse(nbytes: int) -> Any:
    """A csr matrix of float64, ten elements in each row."""
    from scipy.sparse import csr_matrix

    rows = nbytes // 130
    indices = (np.arange(rows * 10, dtype=np.int32) * 7919) % 1000
    return csr_matrix((np.ones(rows * 10), indices, np.arange(0, rows * 10 + 1, 10, dtype=np.int32)))


def arrays(nbytes: int) -> Any:
    """A dict of four arrays and a name."""
    return {"name": "model", **{key: np.ones(nbytes // 32) for key in "abcd"}}


def many(nbytes: int) -> Any:
    """A list of arrays of 80 kB."""
    return [np.ones(10_000) for _ in range(max(1, nbytes // 80_000))]


def forest(nbytes: int) -> Any:
    """A fitted forest of a hundred trees, whatever `nbytes` is."""
    from sklearn.ensemble import RandomForestRegressor

    points = np.random.default_rng(1).random((5_000, 4))
    return RandomForestRegressor(100, random_state=1).fit(points, points.sum(1))


#: By the name of the point: the maker, and the modules that it needs.
KINDS: dict[str, tuple[Callable[[int], Any], tuple[str, ...]]] = {
    "DataFrame": (frame, ("pandas",)),
    "text": (text, ("pandas", "pyarrow")),
    "csr matrix": (sparse, ("scipy",)),
    "dict of arrays": (arrays, ()),
    "arrays of 80 kB": (many, ()),
    "forest": (forest, ("sklearn",)),
}


def all_of(nbytes: int) -> Iterator[tuple[str, Any]]:
    """(name, object of about so many bytes) of each kind whose library is installed."""
    for name, (make, modules) in KINDS.items():
        if all(importlib.util.find_spec(module) is not None for module in modules):
            yield name, make(nbytes)
