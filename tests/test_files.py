"""load and fromfile: files read straight into shared memory."""

import io
import tracemalloc

import numpy as np
import pytest
from samples import DTYPES, name, sample
from support import same
from test_creation import check_like

import sharedmem


def buffered(path):
    return open(path, "rb")


def unbuffered(path):
    return open(path, "rb", buffering=0)


def saved(a, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, a, version)
    file.seek(0)
    return file


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d.itemsize], ids=name)
@pytest.mark.parametrize("order", ["C", "F"])
def test_load_of_every_dtype(tmp_path, dtype, order):
    try:
        np.save(tmp_path / "a.npy", sample((4, 3), dtype, order))
        np.load(tmp_path / "a.npy")
    except ValueError as error:
        pytest.skip(f"NumPy itself cannot store this dtype: {error}")
    got = sharedmem.load(tmp_path / "a.npy")
    check_like(got, np.load(tmp_path / "a.npy"))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,), (2, 3, 4), (100_000,)], ids=str)
def test_load_of_every_shape(tmp_path, shape):
    np.save(tmp_path / "a.npy", sample(shape))
    check_like(sharedmem.load(str(tmp_path / "a.npy")), sample(shape))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_load_of_every_format_version(version):
    dtype = [("é", "f4")] if version == (3, 0) else "f4"
    a = sample((3, 5), dtype)
    check_like(sharedmem.load(saved(a, version)), a)


def test_load_from_file_objects_continues_where_it_stopped(tmp_path):
    first, second = sample((3, 4)), sample(7, "i2", "F")
    path = tmp_path / "two.npy"
    path.write_bytes(saved(first).getvalue() + saved(second).getvalue() + b"tail")
    for opened in (buffered, unbuffered, lambda path: io.BytesIO(path.read_bytes())):
        with opened(path) as file:
            check_like(sharedmem.load(file), first)
            check_like(sharedmem.load(file), second)
            assert file.read() == b"tail"


@pytest.mark.parametrize("keep", [0, 5, 40, -1, -8])
def test_load_of_a_truncated_file_is_an_error(tmp_path, keep):
    path = tmp_path / "a.npy"
    path.write_bytes(saved(sample(100)).getvalue()[:keep])
    before = sharedmem.stats()["live_blocks"]
    with pytest.raises((ValueError, EOFError)):
        sharedmem.load(path)
    with open(path, "rb") as file, pytest.raises((ValueError, EOFError)):
        sharedmem.load(file)
    assert sharedmem.stats()["live_blocks"] == before


def test_load_of_something_else_is_an_error(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(b"not an array file" * 10)
    with pytest.raises(ValueError):
        sharedmem.load(path)
    with pytest.raises(FileNotFoundError):
        sharedmem.load(tmp_path / "missing.npy")


def test_load_never_unpickles(tmp_path):
    np.save(tmp_path / "a.npy", np.array([1, None]), allow_pickle=True)
    with pytest.raises((TypeError, ValueError), match=r"[Oo]bject"):
        sharedmem.load(tmp_path / "a.npy")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("wrap", [str, buffered, unbuffered])
def test_load_makes_no_private_copy(tmp_path, order, wrap):
    np.save(tmp_path / "a.npy", sample((2048, 4096), "f8", order))
    file = wrap(tmp_path / "a.npy")
    tracemalloc.start()
    try:
        got = sharedmem.load(file)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        if not isinstance(file, str):
            file.close()
    assert got.nbytes == 2**26
    assert peak < 2**24
    assert same(got, sample((2048, 4096), "f8", order))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dtype": "i2"},
        {"dtype": "f4", "count": 7},
        {"offset": 16},
        {"dtype": ">u4", "count": 3, "offset": 5},
        {"count": 0},
        {"dtype": [("x", "i4"), ("y", "f8")]},
        {"dtype": "S3"},
        {"count": 1000},
    ],
    ids=str,
)
def test_fromfile(tmp_path, options):
    path = tmp_path / "raw"
    path.write_bytes(sample(100).tobytes())
    expected = np.fromfile(path, **options)
    check_like(sharedmem.fromfile(path, **options), expected)
    check_like(sharedmem.fromfile(str(path), **options), expected)
    with open(path, "rb") as file:
        check_like(sharedmem.fromfile(file, **options), expected)


def test_fromfile_of_text(tmp_path):
    path = tmp_path / "text"
    path.write_text("1, 2.5, -3e2")
    check_like(sharedmem.fromfile(path, sep=","), np.fromfile(path, sep=","))
    check_like(sharedmem.fromfile(path, float, 2, ","), np.fromfile(path, float, 2, ","))


def test_fromfile_continues_where_it_stopped(tmp_path):
    path = tmp_path / "raw"
    path.write_bytes(np.arange(30, dtype="i4").tobytes())
    with open(path, "rb") as file:
        file.read(8)
        assert sharedmem.fromfile(file, "i4", 5).tolist() == [2, 3, 4, 5, 6]
        assert file.tell() == 28
        assert sharedmem.fromfile(file, "i4", 2).tolist() == [7, 8]
        assert sharedmem.fromfile(file, "i4", offset=4).tolist() == list(range(10, 30))


def test_fromfile_errors(tmp_path):
    (tmp_path / "raw").write_bytes(b"12345678")
    with pytest.raises(FileNotFoundError):
        sharedmem.fromfile(tmp_path / "missing")
    with pytest.raises((TypeError, ValueError), match=r"[Oo]bject"):
        sharedmem.fromfile(tmp_path / "raw", object)
    with pytest.raises(TypeError):
        sharedmem.fromfile(tmp_path / "raw", "nonsense")


def test_fromfile_makes_no_private_copy(tmp_path):
    path = tmp_path / "raw"
    sample(2**22).tofile(path)
    tracemalloc.start()
    try:
        got = sharedmem.fromfile(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**23
    assert same(got, sample(2**22))


@pytest.mark.parametrize("read", [sharedmem.load, sharedmem.fromfile])
@pytest.mark.parametrize("what", [None, 5, [b"bytes"]])
def test_arguments_that_are_not_files(read, what):
    with pytest.raises(TypeError, match="path or a file opened in binary mode"):
        read(what)


@pytest.mark.parametrize("read", [sharedmem.load, sharedmem.fromfile])
def test_files_of_text(read, tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, sample(10))
    with open(path, encoding="latin-1") as file, pytest.raises(TypeError, match="not TextIOWrapper"):
        read(file)


def test_fromfile_without_a_descriptor():
    with pytest.raises(TypeError, match="BytesIO has no descriptor"):
        sharedmem.fromfile(io.BytesIO(bytes(80)))
