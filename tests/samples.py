"""Arrays to try things on: dtypes, shapes and views of every kind, with known contents."""

import numpy as np

PLAIN = [
    np.dtype(text)
    for text in (
        "?",
        "i1",
        "u2",
        "i4",
        "u8",
        "f2",
        "f4",
        "f8",
        "g",
        "c8",
        "c16",
        "G",
        "S7",
        "U3",
        "M8[ns]",
        "M8[D]",
        "m8[s]",
        "m8",
        ">i4",
        ">f8",
        ">U5",
        "V5",
    )
]

STRUCTURED = [
    np.dtype([("x", "f8"), ("n", "i4")]),
    np.dtype([("x", "u1"), ("y", "f8"), ("z", "i2")], align=True),
    np.dtype([("matrix", ">f4", (2, 3)), ("name", "S5")]),
    np.dtype([("inner", [("a", "i2"), ("b", "U2")]), ("when", "M8[us]")]),
    np.dtype({"names": ["lo", "hi"], "formats": ["u2", "u4"], "offsets": [4, 12], "itemsize": 24}),
    np.dtype({"names": ["all", "half"], "formats": ["u4", "u2"], "offsets": [0, 2]}),
    np.dtype({"names": ["x"], "formats": ["f8"], "titles": ["a title"]}),
    np.dtype([]),
]

DTYPES = PLAIN + STRUCTURED

# As many axes as NumPy 1 has, less those of a field.
SHAPES = [(), (0,), (1,), (7,), (5, 0), (1, 0, 3), (3, 4), (2, 3, 4), (1, 1, 1, 1), (1,) * 30]


def name(value):
    """Readable test ids."""
    if isinstance(value, np.dtype):
        return value.str if value.names is None else "struct" + "_".join(value.names)
    return str(value).replace(" ", "")


def fill(a):
    """Writes values that depend on the position; returns the array."""
    if a.dtype.names is not None:
        for field in a.dtype.names:
            fill(a[field])
    elif a.dtype.kind == "V":
        items = [bytes([i % 250 + 1]) * a.dtype.itemsize for i in range(a.size)]
        a[...] = np.array(items, a.dtype).reshape(a.shape)
    elif a.dtype.kind == "b":
        a[...] = np.arange(a.size).reshape(a.shape) % 3 == 0
    else:
        a[...] = (np.arange(a.size) % 100 + 1).reshape(a.shape).astype(a.dtype)
    return a


def sample(shape, dtype="f8", order="C"):
    """A plain array in private memory with known contents."""
    return fill(np.zeros(shape, dtype, order))


VIEWS = {
    "whole": lambda a: a,
    "ellipsis": lambda a: a[...],
    "rows": lambda a: a[1:4],
    "step": lambda a: a[::2, 1::3],
    "negative": lambda a: a[::-1, ::-2],
    "transposed": lambda a: a.T,
    "row": lambda a: a[2],
    "column": lambda a: a[:, 3],
    "element": lambda a: a[1:2, 1:2],
    "zero-d": lambda a: a[2, 3, ...],
    "new axis": lambda a: a[:, None],
    "reshaped": lambda a: a.reshape(3, -1),
    "broadcast": lambda a: np.broadcast_to(a[0], (4, a.shape[1]), subok=True),
    "bytes": lambda a: a.view("u1"),
    "diagonal": lambda a: a.diagonal(),
    "empty slice": lambda a: a[3:3],
}
