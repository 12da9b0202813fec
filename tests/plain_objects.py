"""Objects whose pickles must not depend on this library, and what multiprocessing makes of them.

Imports nothing of it: one interpreter runs this file before the library is imported, another one after it.
"""

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import hashlib
import io
import pathlib
import sys
import types
import uuid
from multiprocessing import reduction

import numpy as np

#: Every kind of dtype that NumPy has built in, in both byte orders where there are two.
DTYPES = (
    *"?bBhHiIlLqQefdgFDG",
    "S5",
    "U3",
    "V6",
    "M8[ns]",
    "m8[us]",
    ">i4",
    ">f8",
    [("x", "f4"), ("y", "i2", (2,)), ("name", "S3")],
)


@dataclasses.dataclass
class Sample:
    name: str
    data: np.ndarray


class Colour(enum.Enum):
    RED = 1


class Slots:
    __slots__ = ("data",)

    def __getstate__(self):
        return self.data

    def __setstate__(self, state):
        self.data = state


def array(dtype, shape=(6, 4)):
    """Numbered elements, as far as the dtype goes."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape))
    if dtype.kind in "SU":
        return np.array([str(i) for i in range(count)], dtype).reshape(shape)
    raw = np.zeros(count, dtype)
    raw.view(np.uint8)[:] = np.arange(count * dtype.itemsize, dtype=np.int64) % 2
    return raw.reshape(shape)


def layouts(a):
    """Views of a two-dimensional array, by name; the last two are read-only."""
    frozen = a.copy()
    frozen.flags.writeable = False
    return {
        "C": a,
        "Fortran": np.asfortranarray(a),
        "strided": a[::2, 1::2],
        "reversed": a[::-1],
        "axes in another order": np.ascontiguousarray(np.stack([a, a])).transpose(1, 0, 2),
        "no axes": np.array(a[0, 0], a.dtype),
        "empty": a[:0],
        "one row": a[:1],
        "read-only": frozen,
        "broadcast": np.broadcast_to(a[0], a.shape),
    }


def arrays():
    """Arrays by name: each dtype, each layout."""
    found = {f"dtype {np.dtype(d).str} {i}": array(d) for i, d in enumerate(DTYPES)}
    found |= {f"float64, {name}": a for name, a in layouts(array("f8")).items()}
    found |= {f"structured, {name}": a for name, a in layouts(array(DTYPES[-1])).items()}
    return found


def others():
    """Objects by name that are not exact ndarrays, or contain some."""
    a = array("f8")
    slots = Slots()
    slots.data = a
    masked = np.ma.masked_array(a, a > 0)
    return {
        "None": None,
        "numbers": [1, -1, 2**70, 1.5, 1j, True],
        "text": "text",
        "bytes": b"bytes" * 100,
        "bytearray": bytearray(b"bytes"),
        "containers": ({1: (2, [3])}, {4}, frozenset({5})),
        "range and slice": (range(3), slice(1, 2)),
        "dates": (datetime.datetime(2020, 1, 1), datetime.timedelta(1)),
        "exact numbers": (decimal.Decimal("1.5"), fractions.Fraction(1, 3)),
        "path and uuid": (pathlib.PurePosixPath("a/b"), uuid.UUID(int=7)),
        "collections": (collections.OrderedDict(a=1), collections.deque([1]), collections.Counter("ab")),
        "enumeration": Colour.RED,
        "exception": ValueError("text", 3),
        "function": functools.partial(len, "abc"),
        "namespace": types.SimpleNamespace(a=a),
        "dataclass of an array": Sample("x", a),
        "slots": slots,
        "array twice and a view": [a, a, a[1:]],
        "nested arrays": {"a": [a, {"b": (a.T, a[::2])}]},
        "array of objects": np.array([1, "x", None, [2]], object),
        "structured objects": np.array([(1, "x")], [("n", "i4"), ("o", object)]),
        "masked array": masked,
        "record array": np.rec.array(array(DTYPES[-1])),
        "scalars": [np.float64(1), np.int8(3), np.datetime64("2020")],
        "dtype": np.dtype(DTYPES[-1]),
        "generator": np.random.default_rng(3),
    }


def pickled(obj, protocol):
    """The bytes that multiprocessing sends for an object, by each of its two functions."""
    file = io.BytesIO()
    reduction.dump(obj, file, protocol)
    dumped = bytes(reduction.ForkingPickler.dumps(obj, protocol))
    assert dumped == file.getvalue()
    return dumped


def digests():
    """A digest of each pickle, by name of the object and protocol."""
    return {
        f"{name}, protocol {protocol}": hashlib.sha256(pickled(obj, protocol)).hexdigest()
        for name, obj in {**arrays(), **others()}.items()
        for protocol in (None, 2, 3, 4, 5)
    }


def main():
    if len(sys.argv) > 1:
        __import__(sys.argv[1])
    import plain_objects

    for name, digest in plain_objects.digests().items():
        print(digest, name)


if __name__ == "__main__":
    main()
