"""What other libraries make within sharedmem.allocator: shared where it is NumPy's, and sent by handle."""

import io
import mmap
import pickle

import numpy as np
import pytest
from support import dumps

import sharedmem
from sharedmem import is_shared

N = 20_000


def use(module):
    return pytest.importorskip(module)


def values(frame):
    """The memory of each column of numbers."""
    return [frame[name].to_numpy(copy=False) for name in frame.columns]


# -- pandas: (what is made within the block, its arrays of numbers)


def read_csv(pandas):
    text = "".join(f"{i},{i / 2}\n" for i in range(N))
    return values(pandas.read_csv(io.StringIO(text), names=["a", "b"]))


def calculated(pandas):
    frame = pandas.DataFrame({"a": np.arange(N), "b": np.arange(N) / 2})
    return values(frame * 2)


def grouped(pandas):
    frame = pandas.DataFrame({"key": np.arange(N) % 5000, "b": np.arange(N) / 2})
    return values(frame.groupby("key").mean())


def merged(pandas):
    left = pandas.DataFrame({"key": np.arange(N), "a": np.arange(N) / 2})
    right = pandas.DataFrame({"key": np.arange(N)[::2], "b": np.arange(N)[::2] / 3})
    return values(left.merge(right, on="key"))


FRAMES = {"read_csv": read_csv, "arithmetic": calculated, "groupby": grouped, "merge": merged}


@pytest.mark.parametrize("way", FRAMES)
def test_numbers_of_frames(way):
    pandas = use("pandas")
    expected = FRAMES[way](pandas)
    with sharedmem.allocator():
        made = FRAMES[way](pandas)
    for a, plain in zip(made, expected, strict=True):
        assert is_shared(a)
        assert not is_shared(plain)
        np.testing.assert_array_equal(a, plain)


def test_a_frame_goes_by_handle():
    pandas = use("pandas")
    with sharedmem.allocator():
        frame = pandas.DataFrame(np.arange(float(N)).reshape(-1, 4)) + 1
    message = dumps(frame)
    assert len(message) < 1000
    got = pickle.loads(message)
    frame.loc[3, 0] = 5.0
    assert got.loc[3, 0] == 5


def test_text_of_arrow_is_in_arrows_memory():
    pandas = use("pandas")
    use("pyarrow")
    with sharedmem.allocator():
        text = pandas.Series([str(i) for i in range(N)], dtype="string[pyarrow]")
    arrow = text.array.__arrow_array__()
    found = [each for chunk in getattr(arrow, "chunks", [arrow]) for each in chunk.buffers()]
    assert any(found)
    assert not any(is_shared(np.frombuffer(each, "u1")) for each in found if each is not None)


# -- others


def test_images_of_opencv():
    cv2 = use("cv2")
    image = np.random.default_rng(1).integers(0, 256, (120, 160, 3), "u1")
    found, file = cv2.imencode(".png", image)
    assert found
    with sharedmem.allocator():
        read = cv2.imdecode(file, cv2.IMREAD_COLOR)
        made = [read, cv2.resize(read, (80, 60)), cv2.GaussianBlur(read, (5, 5), 0), cv2.split(read)[0]]
    assert np.array_equal(read, image)
    for each in made:
        assert is_shared(each)
        got = pickle.loads(dumps(each))
        got[0, 0] = 77
        assert (each[0, 0] == 77).all()


def test_sparse_matrices_and_signals_of_scipy():
    sparse = use("scipy.sparse")
    from scipy.signal import convolve

    with sharedmem.allocator():
        matrix = sparse.random(200, 200, 0.1, "csr", random_state=1)
        product = matrix @ matrix
        signal = convolve(np.arange(1000.0), np.ones(5), method="direct")
    assert is_shared(matrix.data)
    assert is_shared(product.data)
    assert is_shared(signal)
    assert len(dumps(product)) < 2000
    sharedmem.revoke(0)


def test_memory_of_other_libraries_stays_theirs():
    with sharedmem.allocator():
        mapped = np.frombuffer(mmap.mmap(-1, 4096), "u1")
        text = np.frombuffer(b"12345678", "i8")
    assert not is_shared(mapped)
    assert not is_shared(text)


def test_tensors_of_torch_have_torchs_memory():
    torch = use("torch")
    with sharedmem.allocator():
        assert not is_shared(torch.ones(1000).numpy())
        assert is_shared(torch.from_numpy(np.ones(1000)).numpy())
