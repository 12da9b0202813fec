"""Objects of many kinds over arrays, for tests of Dask. Workers import this module by its name."""

import importlib.util

import numpy as np

import sharedmem


class Own:
    """A class for which Dask has no serializer of its own."""

    def __init__(self, a):
        self.a = a
        self.more = {"b": [a[:10]]}

    def __eq__(self, other):
        return np.array_equal(self.a, other.a) and np.array_equal(self.more["b"][0], other.more["b"][0])

    __hash__ = None


def values():
    return np.arange(50_000.0)


def pandas_frame(a, text=False):
    import pandas

    if text:
        return pandas.DataFrame({"x": np.asarray(a), "t": ["text"] * len(a)}, copy=False)
    return pandas.DataFrame(np.asarray(a).reshape(-1, 5), columns=list("abcde"), copy=False)


def pandas_series(a):
    import pandas

    return pandas.Series(np.asarray(a), copy=False)


def sparse(a, n=40_000):
    import scipy.sparse

    return scipy.sparse.csr_array(
        (np.asarray(a)[:n], np.arange(n), np.arange(n + 1)), shape=(n, n), copy=False
    )


def labelled(a):
    import xarray

    return xarray.DataArray(np.asarray(a), dims="x")


#: Objects of many kinds over an array of values, by name.
KINDS = {
    "array": lambda a: a,
    "tuple": lambda a: (a, 1, "text", a[:5]),
    "dict": lambda a: {"x": a, "y": [a]},
    "reversed": lambda a: a[::-1],
    "strided": lambda a: a[::3],
    "two axes": lambda a: a.reshape(100, 500),
    "Fortran": lambda a: a.reshape(100, 500).T,
    "masked": lambda a: np.ma.masked_greater(np.asarray(a), 100),
    "record": lambda a: a.reshape(-1, 2).view([("a", "f8"), ("b", "f8")]),
    "own class": lambda a: Own(a),
    "small": lambda a: a[:5],
    "none": lambda a: a[:0],
    "read-only": lambda a: frozen(a),
}
for package, kinds in (
    ("pandas", {"series": pandas_series, "frame": pandas_frame, "mixed": lambda a: pandas_frame(a, True)}),
    ("scipy", {"csr": sparse}),
    ("xarray", {"xarray": labelled}),
):
    if importlib.util.find_spec(package):
        KINDS |= kinds


def frozen(a):
    view = a[:]
    view.setflags(write=False)
    return view


def one_object(name, shared):
    return KINDS[name]((sharedmem.array if shared else np.array)(values()))


def equal(x, y):
    if type(y).__name__ == "SharedArray":
        y = np.asarray(y)
    if type(x).__name__ == "SharedArray":
        x = np.asarray(x)
    if type(x) is not type(y):
        return False
    if isinstance(x, np.ma.MaskedArray):
        return bool((x.mask == y.mask).all()) and np.array_equal(x.filled(0), y.filled(0))
    if isinstance(x, np.ndarray):
        return x.dtype == y.dtype and np.array_equal(x, y) and x.flags.writeable == y.flags.writeable
    if isinstance(x, (tuple, list)):
        return len(x) == len(y) and all(map(equal, x, y))
    if isinstance(x, dict):
        return x.keys() == y.keys() and all(equal(x[k], y[k]) for k in x)
    if hasattr(x, "equals"):
        return x.equals(y)
    if hasattr(x, "tocoo"):
        return (x != y).nnz == 0
    return x == y


def equals_object(obj, name):
    return bool(equal(obj, one_object(name, False)))


def wrong(cases, right):
    return [case for case, ok in zip(cases, right, strict=True) if not ok]
