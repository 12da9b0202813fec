"""`sharedmem.zarr`: what zarr reads is made in shared memory."""

import numpy as np
import pytest
from support import check_python

import sharedmem

# Of text zarr says that its format may change.
pytestmark = pytest.mark.filterwarnings("ignore:The data type")


@pytest.fixture
def zarr():
    module = pytest.importorskip("zarr", minversion="3")
    with module.config.set({"ndbuffer": "sharedmem.zarr.NDBuffer"}):
        yield module


DTYPES = ["f8", "i2", "c16", "?", "M8[s]", "S5", "U3", ">i4"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_what_is_read_is_shared_and_equals_what_was_written(zarr, tmp_path, dtype, order):
    given = np.arange(600).reshape(20, 30).astype(dtype)
    stored = zarr.create_array(
        tmp_path / "a", shape=given.shape, chunks=(7, 11), dtype=given.dtype, config={"order": order}
    )
    stored[...] = given
    opened = zarr.open_array(tmp_path / "a", mode="r", config={"order": order})
    for part in (..., slice(3, 17), (slice(None), 5)):
        read = opened[part]
        assert sharedmem.is_shared(read)
        assert (read == given[part]).all()


def test_parts_that_were_never_written_have_the_fill_value(zarr, tmp_path):
    for value in (0, 7.5, np.nan):
        stored = zarr.create_array(
            tmp_path / f"{value}", shape=(20, 20), chunks=(5, 5), dtype="f8", fill_value=value
        )
        stored[0:5, 0:5] = 1
        read = stored[...]
        assert sharedmem.is_shared(read)
        assert (read[:5, :5] == 1).all()
        assert np.array_equal(read[5:], np.full((15, 20), value), equal_nan=True)


@pytest.mark.parametrize("dtype", ["f8", "S5", "U3", "M8[s]", ">i4", "i4, S3", "?"])
def test_new_buffers_have_what_those_of_zarr_have(zarr, dtype):
    from zarr.core.buffer import cpu

    from sharedmem.zarr import NDBuffer

    for value in (None, 0, False, True, 1, 0.0, np.array(1, "i8").astype(dtype)):
        for order in "CF":
            options = {"shape": (3, 4), "dtype": dtype, "order": order, "fill_value": value}
            made = NDBuffer.create(**options).as_numpy_array()
            theirs = cpu.NDBuffer.create(**options).as_numpy_array()
            assert sharedmem.is_shared(made)
            assert (made.dtype, made.strides) == (theirs.dtype, theirs.strides)
            assert made.tobytes() == theirs.tobytes()


def test_shards_version_2_and_the_store_in_memory(zarr, tmp_path):
    given = np.arange(1000.0).reshape(10, 100)
    for options in (
        {"store": tmp_path / "shards", "shards": (10, 50), "chunks": (5, 10)},
        {"store": tmp_path / "two", "zarr_format": 2, "chunks": (5, 10)},
        {"store": zarr.storage.MemoryStore(), "chunks": (5, 10)},
    ):
        stored = zarr.create_array(shape=given.shape, dtype="f8", **options)
        stored[...] = sharedmem.asshared(given)
        assert sharedmem.is_shared(stored[...])
        assert (stored[...] == given).all()
        # No other process has the array.
        read = stored[...]
        read[:] = 0
        assert (stored[...] == given).all()


def test_text_of_any_length_is_private(zarr, tmp_path):
    stored = zarr.create_array(tmp_path / "text", shape=(3,), dtype=str)
    stored[:] = np.array(["a", "bcd", ""], object)
    read = stored[...]
    assert not sharedmem.is_shared(read)
    assert list(read) == ["a", "bcd", ""]


def test_no_room_is_a_memory_error(zarr, tmp_path):
    stored = zarr.create_array(tmp_path / "huge", shape=(1 << 55,), chunks=(1 << 20,), dtype="u1")
    with pytest.raises(MemoryError, match="bytes"):
        stored[...]


def test_without_the_setting_zarr_is_unchanged(tmp_path):
    pytest.importorskip("zarr", minversion="3")
    code = """
    import sys, zarr, sharedmem
    stored = zarr.create_array(sys.argv[1], shape=(30,), dtype="f8")
    stored[:] = 5
    assert not sharedmem.is_shared(stored[...])
    # With the entry point no import is needed.
    zarr.config.set({"ndbuffer": "sharedmem.zarr.NDBuffer"})
    assert sharedmem.is_shared(stored[...])
    print("done")
    """
    assert check_python(code, tmp_path / "a") == "done"


def test_without_zarr_the_error_names_the_extra():
    code = """
    import sys
    sys.modules["zarr"] = None
    try:
        import sharedmem.zarr
    except ImportError as error:
        print(error.name, error)
    """
    said = check_python(code)
    assert said.startswith("zarr ")
    assert "pip install 'numpy-sharedmem[zarr]'" in said
