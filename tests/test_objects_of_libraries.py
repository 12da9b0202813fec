"""`share` and `dumps` of what other libraries make: the type stays, and the numbers lie in shared memory."""

import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import workers
from support import Remote, address

import sharedmem
from sharedmem import dumps, is_shared, loads, share
from sharedmem._pieces import gather
from sharedmem.objects import _pickle

BOTH = pytest.mark.parametrize("way", [share, lambda obj: loads(dumps(obj))], ids=["share", "sent"])


@pytest.fixture(autouse=True)
def _no_message_is_left():
    yield
    sharedmem.revoke(0)


def copies_nothing(shared):
    """Whether a message with the object needs no new memory, and is short."""
    stream, buffers, _ = _pickle(shared)
    sources, _ = gather(buffers)
    return sources[0] is None and len(stream) < 5000


# -- pandas


def frame(pd):
    n = 1000
    made = {
        "numbers": np.arange(n, dtype=float),
        "integers": np.arange(n),
        "categories": pd.Categorical(np.array(["a", "b", None], object)[np.arange(n) % 3]),
        "times": pd.date_range("2020", periods=n, freq="h", tz="Europe/Berlin"),
        "missing": pd.array([*range(n - 1), None], dtype="Int64"),
        "spans": pd.to_timedelta(np.arange(n), "s"),
        "periods": pd.period_range("2020", periods=n, freq="D"),
        "intervals": pd.interval_range(0, n),
        "sparse": pd.arrays.SparseArray(np.arange(n) % 5),
    }
    return pd.DataFrame(made, index=pd.Index(np.arange(n) * 2, name="key"))


def arrays_in(column):
    """The arrays of numbers that a column consists of."""
    values = column.array
    for name in ("_ndarray", "_data", "_mask", "_left", "_right", "_sparse_values"):
        found = getattr(values, name, None)
        found = getattr(found, "_ndarray", found)
        if isinstance(found, np.ndarray):
            yield found


@BOTH
def test_frames(way):
    pd = pytest.importorskip("pandas")
    df = frame(pd)
    df.attrs["unit"] = "m"
    got = way(df)
    pd.testing.assert_frame_equal(got, df)
    assert got.attrs == {"unit": "m"}
    for name in df:
        found = list(arrays_in(got[name]))
        assert found or name == "intervals", name
        assert all(is_shared(each) for each in found), name
    assert is_shared(got.index.to_numpy())
    assert copies_nothing(got)


@BOTH
def test_series_and_indexes(way):
    pd = pytest.importorskip("pandas")
    for made in (
        pd.Series(np.arange(10.0), name="x"),
        pd.Index(np.arange(5)),
        pd.date_range("2020", periods=3),
    ):
        got = way(made)
        assert type(got) is type(made)
        assert got.equals(made)
        assert is_shared(got.to_numpy())


@BOTH
def test_text_in_frames(way):
    """Text of Arrow lies in shared memory; text of Python does not, and is copied."""
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    words = [f"word {i}" for i in range(1000)]
    df = pd.DataFrame(
        {"a": pd.array(words, "string[pyarrow]"), "o": pd.Series(words, dtype=object), "n": range(1000)}
    )
    got = way(df)
    pd.testing.assert_frame_equal(got, df)
    arrow = got["a"].array.__arrow_array__()
    for chunk in getattr(arrow, "chunks", [arrow]):
        assert all(is_shared(np.frombuffer(each, "u1")) for each in chunk.buffers() if each is not None)
    assert copies_nothing(way(df[["a", "n"]]))


def test_a_check_that_something_is_copied_finds_it():
    assert not copies_nothing([np.ones(10)])
    assert copies_nothing(share([np.ones(10)]))


@BOTH
def test_columns_of_arrow_in_other_shapes(way):
    """Several chunks, slices, and no items."""
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    words = pd.Series([f"word {i}" for i in range(10_000)], dtype="string[pyarrow]")
    numbers = pd.Series(range(10_000), dtype="int64[pyarrow]")
    for whole in (words, numbers):
        for made in (whole, whole[10:20], whole[:0], pd.concat([whole, whole[:5]]), whole[::2]):
            got = way(made)
            pd.testing.assert_series_equal(got, made)
            assert copies_nothing(got) or len(made) == 0
        assert (
            sum(part.raw().nbytes for part in _pickle(whole[10:20])[1]) < 1000
        )  # not all that it is a slice of
        got = way(whole)
        pd.testing.assert_series_equal(way(got[10:20]), whole[10:20])
        assert copies_nothing(got[10:20])


def test_text_that_is_shared_travels_by_multiprocessing():
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    made = pd.DataFrame({"text": pd.array([f"word {i}" for i in range(10_000)], "string[pyarrow]")})
    got = share(made)
    message = bytes(ForkingPickler.dumps(got))
    assert len(message) < 3000
    pd.testing.assert_frame_equal(pickle.loads(message), made)


def test_another_process_sees_a_write_into_a_frame():
    pd = pytest.importorskip("pandas")
    got = share(pd.DataFrame({"a": np.zeros(100), "b": np.zeros(100)}))
    with Remote("spawn") as other:
        other.call(workers.hold_handle, "frame", dumps(got))
        got.loc[3, "b"] = 5.0
        assert is_shared(got["b"].to_numpy())
        assert other.call(workers.total_of_frame, "frame") == 5
        other.call(workers.drop, "frame")


def test_shared_objects_travel_by_multiprocessing_without_their_data(context):
    """With ndarrays of any kind that lie in shared memory; those of a frame, an Arrow column and a tensor."""
    pd = pytest.importorskip("pandas")
    made = {"frame": pd.DataFrame({"a": np.zeros(10_000), "b": np.ones(10_000)}), "array": np.arange(10_000)}
    got = share(made)
    assert len(ForkingPickler.dumps(got)) < 3000
    pool = context.Pool(1)
    assert pool.apply(workers.add_to_all, (got,)) == 10_000 * 3 + made["array"].sum() + 10_000
    assert got["array"][0] == 1
    assert got["frame"]["a"][5] == 1
    pool.close()
    pool.join()


@pytest.mark.parametrize("library", ["pyarrow", "torch", "scipy.sparse"])
def test_shared_objects_of_other_libraries_travel_by_multiprocessing(library):
    module = pytest.importorskip(library)
    made = {
        "pyarrow": lambda: module.table({"x": np.arange(10_000), "text": ["a word"] * 10_000}),
        "torch": lambda: [module.ones(10_000), module.nn.Linear(100, 100)],
        "scipy.sparse": lambda: module.random(300, 300, 0.1, "csr"),
    }[library]()
    got = share(made)
    message = bytes(ForkingPickler.dumps(got))
    assert len(message) < 3000
    again = pickle.loads(message)
    if library == "pyarrow":
        assert again.equals(made)
    elif library == "torch":
        assert again[0].data_ptr() == got[0].data_ptr()
        assert again[1].weight.data_ptr() == got[1].weight.data_ptr()
    else:
        assert np.shares_memory(again.data, got.data)


# -- Arrow


def buffers_of(table):
    for column in table.columns:
        for chunk in column.chunks:
            yield from (each for each in chunk.buffers() if each is not None)


@BOTH
def test_arrow_tables(way):
    pa = pytest.importorskip("pyarrow")
    n = 1000
    made = pa.table(
        {
            "x": np.arange(float(n)),
            "text": [f"word {i}" for i in range(n)],
            "words": pa.array(["u", "v"] * (n // 2)).dictionary_encode(),
            "missing": pa.array([None, 1] * (n // 2)),
            "lists": pa.array([[1, 2], []] * (n // 2)),
            "records": pa.array([{"a": 1, "b": "x"}] * n),
        },
        metadata={"key": "value"},
    )
    got = way(made)
    assert got.equals(made, check_metadata=True)
    got.validate(full=True)
    for mine, theirs in zip(buffers_of(got), buffers_of(made), strict=True):
        assert is_shared(np.frombuffer(mine, "u1"))
        assert mine.is_mutable == theirs.is_mutable
    assert copies_nothing(got)


@BOTH
def test_arrow_buffers_over_shared_memory_are_not_copied(way):
    pa = pytest.importorskip("pyarrow")
    a = sharedmem.array(np.arange(100))
    got = way(pa.py_buffer(a))
    assert got.address == address(a)
    got = way(pa.array(np.asarray(a))[10:])
    assert got.buffers()[1].address == address(a)
    assert got[0].as_py() == 10


# -- SciPy, xarray, scikit-learn


@BOTH
@pytest.mark.parametrize("kind", ["csr_array", "csc_matrix", "coo_array", "bsr_array"])
def test_sparse_matrices(way, kind):
    sparse = pytest.importorskip("scipy.sparse")
    made = getattr(sparse, kind)(sparse.random(100, 80, 0.1, random_state=1))
    got = way(made)
    assert type(got) is type(made)
    assert abs(got - made).nnz == 0
    parts = [value for value in vars(got).values() if isinstance(value, np.ndarray)]
    assert parts
    assert all(is_shared(each) for each in parts)
    assert (got @ np.ones(80) == made @ np.ones(80)).all()
    assert copies_nothing(got)


@BOTH
def test_xarray(way):
    xr = pytest.importorskip("xarray")
    made = xr.Dataset(
        {"v": (("x", "y"), np.arange(12.0).reshape(3, 4)), "n": ("x", np.arange(3))},
        coords={"x": [10, 20, 30], "y": list("abcd")},
        attrs={"unit": "m"},
    )
    got = way(made)
    assert got.identical(made)
    assert is_shared(got["v"].data)
    assert is_shared(got["n"].data)
    assert copies_nothing(got)


@BOTH
def test_estimators(way):
    pytest.importorskip("sklearn")
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LinearRegression
    from sklearn.neighbors import KNeighborsClassifier

    x = np.random.default_rng(1).random((300, 5))
    y = (x[:, 0] > 0.5).astype(int)
    for made in (
        RandomForestClassifier(5, random_state=1),
        HistGradientBoostingClassifier(max_iter=5),
        KNeighborsClassifier(),
        LinearRegression(),
    ):
        got = way(made.fit(x, y))
        assert type(got) is type(made)
        assert (got.predict(x) == made.predict(x)).all()
    assert is_shared(got.coef_)


# -- torch


def data_of(tensor):
    """The numbers of a tensor as an array of bytes over the same memory."""
    import torch

    return tensor.detach().view(torch.uint8).numpy()


@BOTH
@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "complex64", "bfloat16", "uint8"])
def test_tensors(way, dtype):
    torch = pytest.importorskip("torch")
    made = (torch.arange(60) % 7).reshape(3, 4, 5).to(getattr(torch, dtype))
    got = way(made)
    assert type(got) is torch.Tensor
    assert got.dtype == made.dtype
    assert torch.equal(got, made)
    assert is_shared(data_of(got))
    assert copies_nothing(got)


@BOTH
def test_layouts_of_tensors(way):
    torch = pytest.importorskip("torch")
    whole = torch.arange(24.0).reshape(2, 3, 4)
    for made in (
        whole.permute(2, 0, 1),
        whole[:, ::2],
        whole[1],
        whole[:, :, 2],
        torch.ones(1).expand(5, 6),
        torch.tensor(3.0),
        torch.empty(0, 3),
    ):
        got = way(made)
        assert torch.equal(got, made)
        assert got.shape == made.shape
    assert way(whole.permute(2, 0, 1)).stride() == whole.permute(2, 0, 1).stride()


def test_what_lies_between_the_elements_of_a_tensor_is_not_copied():
    torch = pytest.importorskip("torch")
    _, buffers, _ = _pickle(torch.zeros(1000, 1000)[:, :10])
    sources, _ = gather(buffers)
    assert sources[0].nbytes < 50_000


@BOTH
def test_tensors_over_shared_memory_are_not_copied(way):
    torch = pytest.importorskip("torch")
    whole = torch.from_numpy(np.asarray(sharedmem.array(np.arange(24.0).reshape(4, 6))))
    for made in (whole, whole[::2, 1::2], whole.T, whole[2]):
        got = way(made)
        assert (got.data_ptr(), got.stride(), got.shape) == (made.data_ptr(), made.stride(), made.shape)


@BOTH
def test_modules(way):
    torch = pytest.importorskip("torch")
    made = torch.nn.Sequential(torch.nn.Linear(10, 20), torch.nn.BatchNorm1d(20))
    made[0].bias.requires_grad_(False)
    got = way(made)
    assert type(got) is type(made)
    for (name, mine), theirs in zip(got.named_parameters(), made.parameters(), strict=True):
        assert type(mine) is torch.nn.Parameter
        assert torch.equal(mine, theirs)
        assert mine.requires_grad == theirs.requires_grad
        assert is_shared(data_of(mine)), name
    x = torch.ones(3, 10)
    assert torch.equal(got.eval()(x), made.eval()(x))
    got.train()(x).sum().backward()
    assert got[0].weight.grad is not None


@BOTH
def test_what_else_torch_can_pickle(way):
    torch = pytest.importorskip("torch")
    sparse = torch.eye(4).to_sparse()
    assert torch.equal(way(sparse).to_dense(), torch.eye(4))
    conjugate = torch.tensor([1 + 2j]).conj()
    assert torch.equal(way(conjugate), conjugate)
    tagged = torch.ones(3)
    tagged.name_of_mine = "x"
    assert way(tagged).name_of_mine == "x"
    needs_gradient = torch.ones(3, requires_grad=True)
    assert way(needs_gradient).requires_grad
    computed = way(needs_gradient * 2)
    assert torch.equal(computed, torch.full((3,), 2.0))
    assert computed.is_leaf  # as torch's own pickles give it
    assert computed.requires_grad
