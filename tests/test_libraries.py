"""Objects of other libraries over arrays travel as the page "What travels how" says, row by row."""

import pickle

import numpy as np
import pytest
from support import TIMEOUT, dumps

import sharedmem
from sharedmem import is_shared

MIB = 1 << 20


def shared(shape, dtype="f8"):
    return np.asarray(sharedmem.zeros(shape, dtype))


def counts():
    return sharedmem.stats()["transport"]


def sent(obj):
    return pickle.loads(dumps(obj))


def carried(obj):
    """What arrives while transport is on, and the bytes of data that went through the arena."""
    with sharedmem.transport():
        before = counts()
        message = dumps(obj)
        after = counts()
        assert after["messages"] == before["messages"] + 1
        assert after["by_pipe"] == before["by_pipe"]
        assert len(message) < 8000
        return pickle.loads(message), after["bytes"] - before["bytes"]


def use(module):
    return pytest.importorskip(module)


# -- containers over shared memory: (make from an array, the array in it)


def frame(a):
    return use("pandas").DataFrame(a, copy=False)


def series(a):
    return use("pandas").Series(a[:, 0], copy=False)


def csr(a):
    sparse = use("scipy.sparse")
    n = a.shape[0]
    return sparse.csr_array(
        (a[:, 0].reshape(-1)[:n], np.arange(n), np.arange(n + 1)), shape=(n, n), copy=False
    )


def csc(a):
    sparse = use("scipy.sparse")
    n = a.shape[0]
    return sparse.csc_matrix(
        (a[:, 0].reshape(-1)[:n], np.arange(n), np.arange(n + 1)), shape=(n, n), copy=False
    )


def coo(a):
    sparse = use("scipy.sparse")
    n = a.shape[0]
    return sparse.coo_array((a[:, 0].reshape(-1)[:n], (np.arange(n), np.arange(n))), shape=(n, n), copy=False)


def dataset(a):
    return use("xarray").Dataset({"a": (("x", "y"), a)})


OVER_ARRAYS = {
    "dict": (lambda a: {"a": [a]}, lambda d: d["a"][0]),
    "pandas.DataFrame": (frame, lambda d: d.to_numpy(copy=False)),
    "pandas.Series": (series, lambda s: s.to_numpy(copy=False)),
    "scipy.sparse.csr_array": (csr, lambda m: m.data),
    "scipy.sparse.csc_matrix": (csc, lambda m: m.data),
    "scipy.sparse.coo_array": (coo, lambda m: m.data),
    "xarray.Dataset": (dataset, lambda d: d["a"].data),
}


@pytest.mark.parametrize("kind", OVER_ARRAYS)
def test_what_lies_over_a_shared_array_shares_it_where_it_arrives(kind):
    make, inner = OVER_ARRAYS[kind]
    a = shared((400, 5))
    thing = make(a)
    if kind.startswith("scipy"):
        # The constructor takes what is contiguous as it is, and copies a column.
        a = thing.data = shared(400)
    assert is_shared(inner(thing))
    got = sent(thing)
    assert type(got) is type(thing)
    assert is_shared(inner(got))
    a.reshape(-1)[0] = 7
    assert np.asarray(inner(got)).reshape(-1)[0] == 7


@pytest.mark.parametrize("kind", OVER_ARRAYS)
def test_ordinary_ones_are_carried_and_arrive_private(kind):
    make, inner = OVER_ARRAYS[kind]
    a = np.arange(200_000, dtype="f8").reshape(-1, 2)
    thing = make(a)
    got, nbytes = carried(thing)
    assert nbytes >= inner(thing).nbytes
    assert type(got) is type(thing)
    assert not is_shared(inner(got))
    assert np.array_equal(inner(got), inner(thing))


def test_a_frame_with_columns_of_all_kinds_equals_what_was_sent():
    pandas = use("pandas")
    use("pyarrow")
    n = 50_000
    plain = pandas.DataFrame(
        {
            "number": np.arange(n),
            "float": np.linspace(0, 1, n),
            "text": [f"row {i}" for i in range(n)],
            "category": pandas.Categorical(["a", "b"] * (n // 2)),
            "when": pandas.date_range("2020", periods=n, freq="min", tz="Europe/Paris"),
            "maybe": pandas.array([1, None] * (n // 2), dtype="Int64"),
        }
    )
    got, nbytes = carried(plain)
    pandas.testing.assert_frame_equal(got, plain)
    assert nbytes > 16 * n
    got.loc[0, "number"] = 5
    assert plain.loc[0, "number"] == 0


# -- pyarrow


def test_an_arrow_buffer_over_a_shared_array_shares_it_read_only():
    pa = use("pyarrow")
    a = shared(10_000, "i8")
    got = sent({"b": pa.py_buffer(a), "table": pa.table({"x": pa.array(a)})})
    a[3] = 42
    assert not got["b"].is_mutable
    assert np.frombuffer(got["b"], "i8")[3] == 42
    assert got["table"]["x"][3].as_py() == 42
    assert len(dumps(pa.py_buffer(a))) < 1000


def test_an_arrow_table_is_carried():
    pa = use("pyarrow")
    table = pa.table({"n": np.arange(100_000), "s": [str(i) for i in range(100_000)]})
    got, nbytes = carried(table)
    assert got.equals(table)
    assert nbytes > 8 * 100_000


def test_small_arrow_buffers_are_pickled_as_usual():
    pa = use("pyarrow")
    table = pa.table({"n": [1, 2], "s": ["a", None]})
    expected = pickle.dumps(table)
    assert dumps(table) == expected
    with sharedmem.transport():
        assert dumps(table) == expected
        assert sent(pa.py_buffer(b"")).equals(pa.py_buffer(b""))


def test_a_task_with_a_buffer_that_cannot_be_loaded_gives_it_back():
    pa = use("pyarrow")
    import multiprocessing

    with sharedmem.transport(), multiprocessing.get_context("fork").Pool(1) as pool:
        with pytest.raises(RuntimeError, match="not here"):
            pool.apply(len, ([NotHere(), pa.py_buffer(bytes(MIB))],))
        assert counts()["in_flight"] == 0


def fail():
    raise RuntimeError("not here")


class NotHere:
    def __reduce__(self):
        return fail, ()


# -- torch


def test_tensors_over_shared_arrays_share_them():
    torch = use("torch.multiprocessing") and use("torch")

    a = shared((20, 30), "f4")
    t = torch.from_numpy(a)
    things = {
        "tensor": t,
        "transposed": t.T,
        "part": t[2:, ::3],
        "parameter": torch.nn.Parameter(t),
        "frozen": torch.nn.Parameter(t, requires_grad=False),
        "bfloat16": t.view(torch.bfloat16),
        "leaf": torch.from_numpy(a).requires_grad_(),
    }
    got = sent(things)
    a[:] = 3
    for name, each in things.items():
        assert type(got[name]) is type(each), name
        assert (got[name].shape, got[name].stride()) == (each.shape, each.stride()), name
        assert (got[name].requires_grad, got[name].dtype) == (each.requires_grad, each.dtype), name
        assert torch.equal(got[name].detach(), each.detach()), name
    with torch.no_grad():
        got["tensor"][0, 0] = 9
    assert a[0, 0] == 9
    assert is_shared(t.numpy()), "the sender's tensor stays where it is"


def test_other_tensors_are_left_to_torch():
    torch = use("torch.multiprocessing") and use("torch")

    before = torch.ones(1000)
    got = sent(before)
    assert got.is_shared()
    assert before.is_shared()
    over = torch.from_numpy(shared(1000, "f4")).requires_grad_()
    with pytest.raises(RuntimeError, match="non-leaf"):
        dumps(over * 2)


def test_queues_of_torch_carry_arrays_by_handle():
    torch = use("torch.multiprocessing") and use("torch")

    context = torch.multiprocessing.get_context("fork")
    queue, answers = context.SimpleQueue(), context.SimpleQueue()
    a = shared(100_000)
    process = context.Process(target=add_one, args=(queue, answers))
    process.start()
    queue.put({"a": a, "t": torch.from_numpy(a)})
    got = answers.get()
    process.join(TIMEOUT)
    assert is_shared(got)
    assert (a == 2).all()
    assert (got == 2).all()


def add_one(queue, answers):
    got = queue.get()
    got["a"] += 1
    got["t"] += 1
    answers.put(got["a"])


def test_a_module_of_another_version_is_a_warning():
    import types

    from sharedmem import _integrations

    with pytest.warns(RuntimeWarning, match="does not know this version of no_library"):
        _integrations._call("joblib_", "wrap_reducers", types.ModuleType("no_library"))


def test_the_page_names_a_test_for_each_of_its_rows():
    import build_tools

    page = (build_tools.ROOT / "doc" / "travels.rst").read_text()
    rows = page.count("   * - ") - page.count(":header-rows: 1")
    assert page.count("``test_") == rows > 15
