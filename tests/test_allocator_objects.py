"""No array of Python objects gets into shared memory by sharedmem.allocator.

NumPy requests zeroed memory for them, which the allocator leaves to NumPy. Should NumPy change which dtypes
get zeroed memory, these tests fail, and `allocator` has to be revised: a forked child that drops such
an array would give up references that are its parent's, too.
"""

import copy
import io
import pickle

import numpy as np
import pytest
import support

import sharedmem
from sharedmem import is_shared

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # os.fork in a process with threads

RECORD = np.dtype([("number", float), ("thing", object)])
NESTED = np.dtype([("rows", RECORD, (2,)), ("n", "i4")])
OBJECTS = [object() for _ in range(100)]
THINGS = np.array(OBJECTS, object)
PICKLED = pickle.dumps(THINGS)


def saved():
    file = io.BytesIO()
    np.save(file, np.array([[1], "two", 3.0], object), allow_pickle=True)
    file.seek(0)
    return file


def filled():
    a = np.empty(100, RECORD)
    a["number"] = np.arange(100)
    a["thing"] = OBJECTS
    return a


def resized(n, m):
    a = np.empty(n, object)
    a.resize(m, refcheck=False)
    return a


# Ways to make an array of objects.
WAYS = {
    "empty": lambda: np.empty(100, object),
    "empty of nothing": lambda: np.empty(0, object),
    "zeros": lambda: np.zeros(100, object),
    "ones": lambda: np.ones(100, object),
    "full": lambda: np.full(100, None),
    "array": lambda: np.array(OBJECTS),
    "array of one": lambda: np.array(OBJECTS[0]),
    "array of lists": lambda: np.array([[1], [2, 3]], object),
    "asarray": lambda: np.asarray(OBJECTS, object),
    "empty_like": lambda: np.empty_like(THINGS),
    "copy": lambda: THINGS.copy(),
    "copy.copy": lambda: copy.copy(THINGS),
    "deepcopy": lambda: copy.deepcopy(THINGS),
    "astype": lambda: np.arange(100).astype(object),
    "fancy indexing": lambda: THINGS[[1, 2, 3]],
    "mask": lambda: THINGS[np.ones(100, bool)],
    "take": lambda: THINGS.take([1, 2]),
    "repeat": lambda: THINGS.repeat(3),
    "tile": lambda: np.tile(THINGS, 3),
    "concatenate": lambda: np.concatenate([THINGS, THINGS]),
    "stack": lambda: np.stack([THINGS, THINGS]),
    "where": lambda: np.where(np.arange(100) > 50, THINGS, None),
    "sort": lambda: np.sort(np.arange(100).astype(object)),
    "unique": lambda: np.unique(np.arange(100).astype(object)),
    "arithmetic": lambda: np.arange(100).astype(object) + 1,
    "reduction": lambda: np.ones((10, 10), object).sum(axis=0),
    "accumulate": lambda: np.add.accumulate(np.ones(100, object)),
    "outer": lambda: np.multiply.outer(np.ones(3, object), np.ones(3, object)),
    "dot": lambda: np.ones((3, 3), object) @ np.ones((3, 3), object),
    "frompyfunc": lambda: np.frompyfunc(lambda x: [x], 1, 1)(np.arange(100)),
    "vectorize": lambda: np.vectorize(lambda x: [x], otypes=[object])(np.arange(100)),
    "fromiter": lambda: np.fromiter(iter(OBJECTS), object),
    "resize": lambda: resized(3, 1000),
    "resize from nothing": lambda: resized(0, 1000),
    "resize to less": lambda: resized(1000, 3),
    "np.resize": lambda: np.resize(THINGS, 1000),
    "flatten": lambda: np.ones((3, 3), object).flatten(),
    "Fortran order": lambda: np.asfortranarray(np.ones((3, 3), object)),
    "record": lambda: np.empty(100, RECORD),
    "record filled": filled,
    "record copied": lambda: filled().copy(),
    "record sorted": lambda: np.sort(filled(), order="number"),
    "nested record": lambda: np.empty(100, NESTED),
    "subarray": lambda: np.empty(100, np.dtype((object, (3,)))),
    "field assigned": lambda: filled()["thing"].copy(),
    "load": lambda: np.load(saved(), allow_pickle=True),
    "masked array": lambda: np.ma.array(THINGS, mask=[True] * 100).copy().data,
    "char.array of object": lambda: np.array(["a", "b"]).astype(object),
    "pickle.loads": lambda: pickle.loads(PICKLED),
}
if hasattr(np.dtypes, "StringDType"):
    WAYS["StringDType"] = lambda: np.array(["a", "b" * 100], np.dtypes.StringDType())
    WAYS["StringDType copied"] = lambda: np.array(["a", "b" * 100], np.dtypes.StringDType()).copy()
    WAYS["StringDType empty"] = lambda: np.empty(10, np.dtypes.StringDType())

# Both make an array first and request memory for its items later, which NumPy does not request as zeroed.
KNOWN = {"pickle.loads", "load"}


def test_only_unpickled_arrays_of_objects_get_into_shared_memory():
    found = set()
    for name, make in WAYS.items():
        with sharedmem.allocator():
            a = make()
        assert a.dtype.hasobject, name
        if is_shared(a):
            found.add(name)
    assert found <= KNOWN


def test_every_dtype_with_references_gets_zeroed_memory():
    sample = [object, RECORD, NESTED, np.dtype((object, (2, 3))), np.dtype([("a", [("b", [("c", "O")])])])]
    if hasattr(np.dtypes, "StringDType"):
        sample += [np.dtypes.StringDType(), np.dtypes.StringDType(na_object=None)]
    for dtype in map(np.dtype, sample):
        assert dtype.hasobject
        for shape in (0, 1, 1000, (3, 4), 300_000):
            with sharedmem.allocator():
                assert not is_shared(np.empty(shape, dtype)), (dtype, shape)


def test_columns_of_objects_in_a_frame():
    pandas = pytest.importorskip("pandas")
    with sharedmem.allocator():
        frame = pandas.DataFrame({"x": np.arange(1000.0), "o": THINGS.repeat(10)})
        joined = pandas.concat([frame, frame]).sort_values("x")
        grouped = frame.groupby(frame["x"] // 10).agg(list)
    for each in (frame["o"], joined["o"], grouped["o"], grouped["x"]):
        values = each.array._ndarray if hasattr(each.array, "_ndarray") else each.to_numpy()
        assert values.dtype == object
        assert not is_shared(values)
    assert is_shared(frame["x"].to_numpy())
    assert is_shared(joined["x"].to_numpy())


def test_a_forked_child_that_drops_objects_leaves_its_parents():
    with sharedmem.allocator():
        arrays = [make() for name, make in WAYS.items() if name not in KNOWN]
        things = np.empty(20_000, object)
        things[:] = [(i,) for i in range(20_000)]
        records = np.empty(1000, RECORD)
        records["thing"] = [(i,) for i in range(1000)]

    def child():
        things[::2] = None
        records["thing"] = 0
        arrays.clear()

    assert support.in_fork(child) == 0
    assert [x[0] for x in things] == list(range(20_000))
    assert [x[0] for x in records["thing"]] == list(range(1000))
    assert len(arrays) == len(WAYS) - len(KNOWN)
    for a in arrays:
        repr(a)
