"""SharedArray under the protocols by which libraries reach an array's memory."""

import ctypes
import gc

import numpy as np
import pytest
from samples import DTYPES, name, sample
from support import address, same, settle

import sharedmem
from sharedmem import SharedArray, is_shared


def test_the_class_is_not_a_constructor():
    with pytest.raises(TypeError, match="empty"):
        SharedArray((3, 4))
    with pytest.raises(TypeError, match="empty"):
        SharedArray(shape=(3,), dtype="f4", buffer=bytearray(12))


def test_the_class_is_an_ndarray():
    assert issubclass(SharedArray, np.ndarray)
    assert isinstance(sharedmem.ones(3), np.ndarray)
    assert SharedArray.__module__.partition(".")[0] == "sharedmem"
    assert SharedArray.__doc__


def test_viewing_private_memory_as_the_class_does_not_make_it_shared():
    a = np.ones(3).view(SharedArray)
    assert type(a) is SharedArray
    assert not is_shared(a)
    assert a.sum() == 3
    a += 1
    assert (a == 2).all()


def test_python_subclasses_work():
    class Image(SharedArray):
        def double(self):
            self *= 2
            return self

    a = sharedmem.ones((3, 4))
    image = a.view(Image)
    assert type(image) is Image
    assert is_shared(image)
    assert (image.double() == 2).all()
    assert type(image[1:]) is Image
    assert (a == 2).all()
    image.title = "a Python subclass has a dict"
    del a
    settle()
    assert (image[1:] == 2).all()


def test_other_subclasses_and_masked_arrays_over_shared_memory():
    a = sharedmem.ones((3, 4))
    matrix = a.view(np.recarray)
    assert is_shared(matrix)
    masked = np.ma.masked_array(a, mask=np.eye(3, 4, dtype=bool))
    assert masked.sum() == 9
    assert is_shared(np.asarray(masked.data))


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d.kind not in "Mm" and d.itemsize], ids=name)
def test_buffer_protocol(dtype):
    plain = sample((3, 4), dtype)
    try:
        expected = memoryview(plain)
    except (ValueError, TypeError, BufferError):
        with pytest.raises((ValueError, TypeError, BufferError)):
            memoryview(sharedmem.asshared(plain))
        return
    view = memoryview(sharedmem.asshared(plain))
    assert (view.format, view.shape, view.strides) == (expected.format, expected.shape, expected.strides)
    assert view.nbytes == expected.nbytes
    assert not view.readonly
    assert view.tobytes() == expected.tobytes()


def test_writes_through_a_memoryview_are_seen():
    a = sharedmem.zeros(8)
    view = memoryview(a)
    view[3] = 2.5
    assert a[3] == 2.5
    view.cast("B")[:8] = np.float64(7).tobytes()
    assert a[0] == 7


def test_readonly_is_kept_by_buffers():
    a = sharedmem.zeros(4)
    a.flags.writeable = False
    assert memoryview(a).readonly
    with pytest.raises(TypeError):
        memoryview(a)[0] = 1
    with pytest.raises(ValueError):
        a[0] = 1
    with pytest.raises(ValueError):
        a += 1
    assert (a == 0).all()


def test_setflags():
    a = sharedmem.zeros(4)
    a.setflags(write=False)
    assert not a.flags.writeable
    view = a[1:]
    assert not view.flags.writeable
    with pytest.raises(ValueError):
        view.setflags(write=True)
    a.setflags(write=True)
    a[0] = 1
    assert not view.flags.writeable
    assert a[1:].flags.writeable


def test_array_interface():
    a = sharedmem.asshared(sample((6, 12)))[1:, ::2]
    expected = sample((6, 12))[1:, ::2].__array_interface__
    got = a.__array_interface__
    for key in ("shape", "typestr", "descr", "strides", "version"):
        assert got[key] == expected[key]
    assert got["data"][1] is False
    assert got["data"][0] % 8 == 0

    class Foreign:
        __array_interface__ = got
        keep = a

    other = np.asarray(Foreign())
    assert is_shared(other)
    other[0, 0] = -1
    assert a[0, 0] == -1


def test_dlpack():
    a = sharedmem.asshared(sample((6, 12), "f4"))
    other = np.from_dlpack(a)
    assert type(other) is np.ndarray
    assert address(other) == address(a)
    assert is_shared(other)
    a[2, 3] = -5
    assert other[2, 3] == -5
    assert a.__dlpack_device__() == np.zeros(1).__dlpack_device__()
    assert same(np.from_dlpack(a[1:, ::3]), np.asarray(a)[1:, ::3])


def test_dlpack_keeps_the_memory_alive():
    settle()
    before = sharedmem.stats()["live_blocks"]
    other = np.from_dlpack(sharedmem.full(10_000, 3.0))
    settle()
    dirty = [sharedmem.zeros(10_000) for _ in range(5)]
    assert (other == 3).all()
    del other, dirty
    settle()
    assert sharedmem.stats()["live_blocks"] == before


def test_torch_shares_the_memory():
    torch = pytest.importorskip("torch")
    a = sharedmem.zeros((3, 4), "f4")
    for tensor in (torch.from_numpy(a), torch.as_tensor(a), torch.from_dlpack(a)):
        tensor += 1
        assert tensor.data_ptr() == address(a)
    assert (a == 3).all()


def test_ctypes():
    a = sharedmem.zeros(4, "i4")
    assert a.ctypes.data == address(a)
    pointer = a.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
    pointer[2] = 9
    assert a[2] == 9
    whole = (ctypes.c_int32 * 4).from_buffer(a)
    whole[3] = 8
    assert a[3] == 8
    assert np.ctypeslib.as_ctypes(a)[2] == 9


def test_arrays_are_not_hashable_but_weakly_referable_as_ndarrays_are():
    import weakref

    a = sharedmem.ones(3)
    with pytest.raises(TypeError):
        hash(a)
    reference = weakref.ref(a)
    assert reference() is a
    del a
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("thing", ["plain", "copy", "sum", "zeros", "memmap"])
def test_is_shared_is_false_for_private_memory(thing, tmp_path):
    a = sharedmem.ones(100)
    plain = {
        "plain": lambda: np.ones(3),
        "copy": a.copy,
        "sum": lambda: a + a,
        "zeros": lambda: np.zeros(10**6),
        "memmap": lambda: np.memmap(tmp_path / "m", "f8", "w+", shape=100),
    }[thing]()
    assert sharedmem.is_shared(plain) is False


def test_is_shared_is_true_for_anything_over_shared_memory():
    a = sharedmem.ones((10, 10))
    for view in (
        a,
        a[3:, ::2],
        a.T,
        np.asarray(a),
        np.frombuffer(a),
        np.asarray(memoryview(a)),
        np.asarray(a)[::-1],
        a.view("u1"),
        np.ndarray((5,), buffer=a.data, offset=8),
    ):
        assert sharedmem.is_shared(view) is True


def test_iteration_comparison_and_protocols_of_python():
    a = sharedmem.array([3, 1, 2])
    assert sorted(a) == [1, 2, 3]
    assert list(reversed(a)) == [2, 1, 3]
    assert 3 in a
    assert len(a) == 3
    assert float(a[1:2].sum()) == 1.0
    assert a.tolist() == [3, 1, 2]
    assert int(sharedmem.array(5)) == 5
    assert f"{sharedmem.array(2.5):.2f}" == "2.50"
    first, *rest = a
    assert (first, rest) == (3, [1, 2])
    assert bool(sharedmem.array([True]))
    match a:
        case np.ndarray():
            pass
        case _:
            pytest.fail("does not match its own class")
