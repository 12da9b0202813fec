"""SharedArray beside ndarray: which operations stay in shared memory, and as what type."""

import copy
import operator

import numpy as np
import pytest
from samples import VIEWS, sample
from support import address, same

import sharedmem
from sharedmem import SharedArray, is_shared


@pytest.fixture
def a():
    return sharedmem.asshared(sample((6, 12)))


@pytest.fixture
def b():
    return sharedmem.asshared(sample((6, 6)))


def private(result):
    """A plain ndarray in private memory."""
    return type(result) is np.ndarray and not is_shared(result)


ARITHMETIC = {
    "a + 1": lambda a: a + 1,
    "1 + a": lambda a: 1 + a,
    "a + a": lambda a: a + a,
    "a + plain": lambda a: a + np.ones(6),
    "plain + a": lambda a: np.ones(6) + a,
    "-a": operator.neg,
    "abs": abs,
    "sqrt": np.sqrt,
    "a @ a": lambda a: a @ a,
    "a > 0": lambda a: a > 0,
    "a == a": lambda a: a == a,
    "einsum": lambda a: np.einsum("ij,jk->ik", a, a),
    "inverse": lambda a: np.linalg.inv(a + np.eye(6) * 1000),
    "fft": np.fft.fft,
    "where": lambda a: np.where(a > 3, a, 0),
    "cumsum": lambda a: a.cumsum(axis=0),
    "np.cumsum": lambda a: np.cumsum(a, axis=1),
    "pad": lambda a: np.pad(a, 1),
    "sum along an axis": lambda a: a.sum(axis=0),
    "mean along an axis": lambda a: np.mean(a, axis=1),
    "keepdims": lambda a: a.sum(keepdims=True),
    "outer": lambda a: np.add.outer(a[0], a[1]),
    "reduceat": lambda a: np.add.reduceat(a[0], [0, 3]),
    "accumulate": lambda a: np.multiply.accumulate(a[0]),
    "view + 1": lambda a: a[::2].T + 1,
}


@pytest.mark.parametrize("operation", ARITHMETIC)
def test_arithmetic_gives_plain_private_arrays(b, operation):
    result = ARITHMETIC[operation](b)
    assert private(result)
    assert same(result, ARITHMETIC[operation](sample((6, 6))))


def test_several_outputs_are_plain(b):
    for results, expected in (
        (np.modf(b), np.modf(sample((6, 6)))),
        (divmod(b, 7), divmod(sample((6, 6)), 7)),
        (np.frexp(b), np.frexp(sample((6, 6)))),
    ):
        assert all(private(result) for result in results)
        assert all(map(same, results, expected))


SCALARS = {
    "sum": lambda a: a.sum(),
    "np.sum": np.sum,
    "max": lambda a: a.max(),
    "mean": lambda a: a.mean(),
    "all": lambda a: a.all(),
    "argmax": lambda a: a.argmax(),
    "dot": lambda a: a.ravel().dot(a.ravel()),
    "item": lambda a: a[0, 0],
    "zero-d": lambda a: a[0, 0, ...][()],
    "ufunc of zero-d": lambda a: np.sqrt(a[0, 0, ...]),
    "zero-d + 1": lambda a: a[0, 0, ...] + 1,
    "norm": np.linalg.norm,
    "median": np.median,
}


@pytest.mark.parametrize("operation", SCALARS)
def test_reductions_and_items_are_numpys_scalars(b, operation):
    result = SCALARS[operation](b)
    expected = SCALARS[operation](sample((6, 6)))
    assert type(result) is type(expected)
    assert result == expected


def test_in_place_operators_give_back_the_array_itself(a):
    for operation in (
        operator.iadd,
        operator.isub,
        operator.imul,
        operator.itruediv,
        operator.ifloordiv,
        operator.imod,
        operator.ipow,
    ):
        where = address(a)
        result = operation(a, 2)
        assert result is a
        assert address(a) == where
        assert is_shared(a)
    ints = sharedmem.array([1, 2, 3])
    for operation in (operator.iand, operator.ior, operator.ixor, operator.ilshift, operator.irshift):
        assert operation(ints, 1) is ints
    squares = sharedmem.ones((3, 3))
    squares @= np.eye(3)
    assert type(squares) is SharedArray


def test_out_gives_back_the_array_itself(a):
    for result in (
        np.add(a, 1, out=a),
        np.sqrt(np.ones((6, 12)), out=a),
        np.clip(a, 0, 9, out=a),
        a.clip(0, 5, out=a),
        np.cumsum(np.ones((6, 12)), axis=0, out=a),
        np.maximum(a, 3, out=a),
        np.multiply(a, 2, out=(a,)),
    ):
        assert result is a
    out = sharedmem.empty(12)
    assert np.sum(a, axis=0, out=out) is out
    assert a.mean(axis=0, out=out) is out
    assert np.matmul(np.ones((1, 6)), a, out=out.reshape(1, 12)).base is not None
    view = a[:3]
    assert np.add(view, 1, out=view) is view
    assert np.add(a, 1, out=a, where=a > 0) is a


def test_out_of_another_kind_stays_that_kind(a):
    plain = np.empty((6, 12))
    assert np.add(a, 1, out=plain) is plain
    assert private(plain)


STAYS = {
    "a[1:3]": lambda a: a[1:3],
    "a[...]": lambda a: a[...],
    "a[()]": lambda a: a[()],
    "a.T": lambda a: a.T,
    "reshape": lambda a: a.reshape(3, 24),
    "ravel": lambda a: a.ravel(),
    "view": lambda a: a.view(),
    "view as u8": lambda a: a.view("u8"),
    "real": lambda a: a.real,
    "swapaxes": lambda a: a.swapaxes(0, 1),
    "transpose": lambda a: np.transpose(a),
    "row": lambda a: a[0],
    "rows": lambda a: next(iter(a)),
    "asanyarray": np.asanyarray,
    "split": lambda a: np.split(a, 2)[1],
    "flip": np.flip,
    "moveaxis": lambda a: np.moveaxis(a, 0, 1),
    "diagonal": lambda a: a.diagonal(),
    "expand_dims": lambda a: np.expand_dims(a, 0),
    "rot90": lambda a: np.rot90(a),
    "nditer": lambda a: np.nditer(a).operands[0],
}


@pytest.mark.parametrize("operation", STAYS)
def test_views_stay_shared_arrays(a, operation):
    result = STAYS[operation](a)
    assert type(result) is SharedArray
    assert is_shared(result)
    assert np.shares_memory(result, a)


@pytest.mark.parametrize("view", VIEWS)
def test_views_have_numpys_values_and_layout(a, view):
    result, expected = VIEWS[view](a), VIEWS[view](sample((6, 12)))
    assert type(result) is SharedArray
    assert same(result, expected)
    assert result.strides == expected.strides
    assert result.size == 0 or is_shared(result)


def test_fields_and_parts_of_complex_numbers_stay_shared():
    structured = sharedmem.zeros(4, [("x", "f8"), ("n", "i4", (2,))])
    for view in (structured["x"], structured["n"], structured[["n"]], structured["n"][1:, 0]):
        assert type(view) is SharedArray
        assert np.shares_memory(view, structured)
    structured["x"][2] = 5
    assert structured[2]["x"] == 5
    numbers = sharedmem.ones(3, complex)
    numbers.imag[1] = 2
    assert numbers[1] == 1 + 2j
    assert is_shared(numbers.imag)


PLAIN_VIEWS = {
    "asarray": np.asarray,
    "array without copy": lambda a: (
        np.asarray(a, copy=False)
        if np.lib.NumpyVersion(np.__version__) >= "2.0.0"
        else np.array(a, copy=False)
    ),
    "ascontiguousarray": np.ascontiguousarray,
    "as_strided": lambda a: np.lib.stride_tricks.as_strided(a, (3,), (8,)),
    "broadcast_to": lambda a: np.broadcast_to(a, (2, 6, 12)),
    "view(ndarray)": lambda a: a.view(np.ndarray),
    "frombuffer": lambda a: np.frombuffer(a),
    "of a memoryview": lambda a: np.asarray(memoryview(a)),
}


@pytest.mark.parametrize("operation", PLAIN_VIEWS)
def test_plain_arrays_over_the_same_memory_are_shared(a, operation):
    result = PLAIN_VIEWS[operation](a)
    assert type(result) is np.ndarray
    assert is_shared(result)
    assert np.shares_memory(result, a)


def test_squeeze_and_atleast_stay_in_shared_memory(a):
    for result in (a[None].squeeze(), np.squeeze(a[:, None]), np.atleast_2d(a), np.atleast_3d(a)):
        assert is_shared(result)
        assert np.shares_memory(result, a)


COPIES = {
    "copy": lambda a: a.copy(),
    "copy.copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "flatten": lambda a: a.flatten(),
    "fancy": lambda a: a[[0, 1]],
    "mask": lambda a: a[a > 2],
    "astype": lambda a: a.astype("f4"),
    "astype same": lambda a: a.astype("f8"),
    "sort": np.sort,
    "take": lambda a: a.take([0, 1], axis=0),
    "unique": np.unique,
    "zeros_like": np.zeros_like,
    "empty_like": lambda a: np.zeros_like(a, "i4"),
    "repeat": lambda a: a.repeat(2),
    "concatenate": lambda a: np.concatenate([a, a]),
    "stack": lambda a: np.stack([a, a]),
    "np.copy": np.copy,
    "np.array": np.array,
    "tile": lambda a: np.tile(a, 2),
    "reshape of a transposed": lambda a: a.T.reshape(-1),
    "roll": lambda a: np.roll(a, 1),
    "compress": lambda a: a.compress([True, False], axis=0),
    "choose": lambda a: np.choose([0, 1], [a[0, :2], a[1, :2]]),
}


@pytest.mark.parametrize("operation", COPIES)
def test_copies_live_in_private_memory(a, operation):
    result = COPIES[operation](a)
    assert isinstance(result, np.ndarray)
    assert not is_shared(result)
    assert not np.shares_memory(result, a)
    assert same(result, COPIES[operation](sample((6, 12))))


@pytest.mark.parametrize("operation", COPIES)
def test_copies_are_not_aliases_of_the_original(a, operation):
    result = COPIES[operation](a)
    result[...] = 0
    assert same(a, sample((6, 12)))


def test_sort_and_other_in_place_methods_work_in_shared_memory(a):
    a.sort(axis=None) if a.ndim == 1 else a[::-1].sort(axis=0)
    a.fill(3)
    a.put([0], 9)
    a.byteswap(inplace=True)
    a.byteswap(inplace=True)
    a.partition(2)
    np.copyto(a, 4)
    np.put_along_axis(a, np.zeros((6, 1), int), 5, axis=1)
    assert is_shared(a)
    assert (a[:, 0] == 5).all()
    assert (a[:, 1:] == 4).all()


def test_resize_in_place_is_refused(a):
    with pytest.raises(ValueError):
        a.resize(100, refcheck=False)
    assert a.shape == (6, 12)


def test_pickled_copies_are_values(a):
    import pickle

    for operation in ("copy", "fancy", "astype", "deepcopy"):
        result = COPIES[operation](a)
        data = pickle.dumps(result)
        assert len(data) > result.nbytes
        loaded = pickle.loads(data)
        assert not is_shared(loaded)
        assert same(loaded, np.asarray(result))


def test_save_and_load_are_numpys(a, tmp_path):
    np.save(tmp_path / "a.npy", a)
    np.savez(tmp_path / "a.npz", a=a)
    assert private(np.load(tmp_path / "a.npy"))
    assert same(np.load(tmp_path / "a.npy"), sample((6, 12)))
    with np.load(tmp_path / "a.npz") as archive:
        assert same(archive["a"], sample((6, 12)))
    a[1:].tofile(tmp_path / "raw")
    assert (np.fromfile(tmp_path / "raw") == sample((6, 12))[1:].ravel()).all()


def test_repr_and_str_say_what_it_is(a):
    assert repr(a).startswith("SharedArray(")
    assert str(a) == str(sample((6, 12)))


def test_a_fresh_array_has_no_base_and_views_name_it(a):
    fresh = sharedmem.ones(3)
    assert fresh.base is None
    assert fresh[1:].base is fresh
    assert fresh[1:][1:].base is fresh
