"""Arrays in files: `open_memmap`, `memmap`, `load(mmap_mode=)`, `flush`."""

import os
import pickle
import sys

import attempts
import numpy as np
import pytest
import workers
from mapped_files import file_of_numbers, mappings  # noqa: F401
from support import address, check_python, needs_64_bit, run_python, same

import sharedmem
from sharedmem import flush, load, memmap, open_memmap

DTYPES = [
    "f8",
    "?",
    ">i4",
    "c16",
    "U5",
    "S3",
    "M8[ns]",
    "V7",
    [("a", "i4"), ("b", ">f8", (2,))],
    [("ä€", "u1")],
]


def descriptors():
    return sorted(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    "opened", [lambda f: load(f, mmap_mode="r"), open_memmap, lambda f: load(str(f), mmap_mode="r")]
)
def test_an_existing_file_is_read_in_place(file, opened):
    before = descriptors()
    a = opened(file)
    assert type(a) is sharedmem.SharedArray
    assert same(a, np.load(file))
    assert sharedmem.is_shared(a)
    assert sharedmem.is_shared(np.asarray(a)[3:])
    assert not sharedmem.is_shared(a.copy())
    assert mappings(file) == ["r--s"]
    assert descriptors() == before
    with open(file, "r+b") as other:
        other.seek(-8, os.SEEK_END)
        other.write(np.float64(-1).tobytes())
    assert a[-1, -1] == -1
    del a
    assert mappings(file) == []


def test_reading_is_all_that_a_file_opened_for_reading_allows(file):
    a = load(file, mmap_mode="r")
    assert attempts.outcomes(a) == attempts.EXPECTED
    assert attempts.outcomes(a[::-1, 1:].T) == attempts.EXPECTED


def test_what_is_written_is_in_the_file(file):
    a = load(file, mmap_mode="r+")
    a[3] = 7
    assert (np.load(file)[3] == 7).all()
    assert (np.load(file, mmap_mode="r")[3] == 7).all()
    reading = open_memmap(file)
    a[4:6] *= 2
    assert (reading[4:6] == np.arange(16, 24).reshape(2, 4) * 2).all()
    a.setflags(write=False)
    a.setflags(write=True)
    a[0, 0] = 1
    assert sorted(mappings(file)) == ["r--s", "rw-s"]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("fortran_order", [False, True])
def test_a_new_file_is_what_numpy_reads(tmp_path, dtype, fortran_order):
    path = tmp_path / "new.npy"
    a = open_memmap(path, "w+", dtype, (5, 3), fortran_order)
    expected = np.zeros((5, 3), dtype, "F" if fortran_order else "C")
    assert same(a, expected)
    assert a.strides == expected.strides
    raw = a.view("u1") if fortran_order is False else a.T.view("u1").T
    raw[...] = 1
    again = np.load(path, mmap_mode="r")
    assert again.dtype == np.dtype(dtype)
    assert again.strides == a.strides
    assert again.tobytes() == a.tobytes()
    assert same(load(path, mmap_mode="r"), a)
    assert same(load(path), a)


def test_a_header_of_more_than_64_kib(tmp_path):
    dtype = [("field" * 20 + str(n), "u1") for n in range(1000)]
    a = open_memmap(tmp_path / "a.npy", "w+", dtype, 3)
    again = np.load(tmp_path / "a.npy", max_header_size=1 << 20)
    assert again.dtype == a.dtype


@pytest.mark.needs_posix
def test_a_new_file_replaces_the_old_one_and_leaves_it_to_its_users(file):
    os.chmod(file, 0o640)
    old = load(file, mmap_mode="r+")
    before = old.copy()
    new = open_memmap(file, "w+", "i2", 10)
    new[:] = 5
    assert (old == before).all()
    old[0] = 9
    assert (np.load(file) == 5).all()
    assert os.stat(file).st_mode & 0o777 == 0o640


@pytest.mark.skipif(sys.platform != "win32", reason="tests what is different on Windows")
def test_windows_refuses_to_replace_a_file_that_is_mapped(file):
    a = load(file, mmap_mode="r+")
    for made in (lambda: open_memmap(file, "w+", "i2", 10), lambda: memmap(file, "i2", "w+", shape=10)):
        with pytest.raises(PermissionError, match=r"does not replace a file that is mapped.*a\.npy"):
            made()
    assert (a.reshape(-1) == np.arange(120)).all()
    assert os.listdir(file.parent) == ["a.npy"]
    del a
    assert open_memmap(file, "w+", "i2", 10).sum() == 0


def test_a_link_is_followed(file):
    link = file.parent / "link.npy"
    link.symlink_to(file.name)
    made = open_memmap(link, "w+", "f4", 3)
    assert link.is_symlink()
    assert np.load(file).shape == made.shape


def test_bare_bytes(tmp_path):
    path = tmp_path / "raw"
    path.write_bytes(bytes(range(200)))
    assert same(memmap(path), np.arange(200, dtype="u1"))
    a = memmap(path, ">u2", offset=3, shape=(4, 5), order="F")
    expected = np.memmap(path, ">u2", "r", 3, (4, 5), "F")
    assert same(a, expected)
    assert a.strides == expected.strides
    assert not a.flags.aligned
    assert same(memmap(path, "f4", "r", 100), np.memmap(path, "f4", "r", 100))
    b = memmap(path, mode="r+", offset=100, shape=7)
    b[:] = 255
    assert path.read_bytes()[99:108] == b"\x63" + 7 * b"\xff" + b"\x6b"
    del a, b, expected  # Windows replaces no file that is mapped
    c = memmap(path, "f8", "w+", 16, (2, 3))
    c[:] = 1
    assert path.read_bytes() == bytes(16) + np.ones(6).tobytes()
    assert memmap(path, "f8", "readonly", 16).sum() == 6


def test_one_mapping_for_a_file_and_mode(file):
    arrays = [load(file, mmap_mode="r") for _ in range(1000)]
    assert mappings(file) == ["r--s"]
    assert len({address(a) for a in arrays}) == 1
    link = file.parent / "hard"
    os.link(file, link)
    assert (load(link, mmap_mode="r") == arrays[0]).all()  # a mapping of its own, since its path differs
    del arrays
    assert mappings(file) == []


def test_a_file_that_has_grown_is_opened_as_it_is_now(tmp_path):
    path = tmp_path / "raw"
    path.write_bytes(bytes(5000))
    a = memmap(path, mode="r+")
    os.truncate(path, 20_000)
    b = memmap(path, mode="r+")
    assert (len(a), len(b)) == (5000, 20_000)
    b[100] = 3
    assert a[100] == 3


@needs_64_bit
def test_a_sparse_file_takes_no_room_until_it_is_written(tmp_path):
    path = tmp_path / "raw"
    path.touch()
    os.truncate(path, 1 << 34)
    a = memmap(path, "f8", "r+")
    assert a.shape == (1 << 31,)
    a[-1] = 1
    assert os.stat(path).st_blocks * 512 < 1 << 24


def test_a_new_file_has_its_blocks(tmp_path):
    open_memmap(tmp_path / "a.npy", "w+", "u1", 1 << 20)
    assert os.stat(tmp_path / "a.npy").st_blocks * 512 >= 1 << 20


def test_arrays_without_elements(tmp_path):
    a = open_memmap(tmp_path / "a.npy", "w+", "f4", (3, 0))
    assert np.load(tmp_path / "a.npy").shape == (3, 0)
    b = load(tmp_path / "a.npy", mmap_mode="r")
    assert (b.shape, b.dtype, b.flags.writeable) == ((3, 0), np.dtype("f4"), False)
    (tmp_path / "empty").touch()
    assert memmap(tmp_path / "empty", "f8").shape == (0,)
    assert memmap(tmp_path / "empty", "f8", "r+", 5 * 0, (2, 0)).shape == (2, 0)
    assert memmap(tmp_path / "new", "f8", "w+", shape=0).shape == (0,)
    flush(a)
    assert open_memmap(tmp_path / "scalar.npy", "w+", "f4", ()).shape == ()


def test_flush_takes_any_view(file):
    a = load(file, mmap_mode="r+")
    for view in (a, a[3:4], a[::-1], a.T, np.asarray(a)[5, 1:2], load(file, mmap_mode="r")):
        assert flush(view) is None
    for other in (np.ones(3), sharedmem.ones(3), a.copy(), np.load(file, mmap_mode="r")):
        with pytest.raises(ValueError, match="not in a file"):
            flush(other)
    with pytest.raises(TypeError, match="needs an array"):
        flush([1, 2])


def test_flush_of_a_view_and_of_bytes_outside(tmp_path):
    a = memmap(tmp_path / "raw", "u1", "w+", shape=1 << 20)
    a[:] = 1
    flush(a)
    a[5 * 4096 + 7] = 2
    flush(a[5 * 4096 + 7 : 5 * 4096 + 8])
    beyond = np.lib.stride_tricks.as_strided(np.asarray(a), (1 << 21,), (1,))
    with pytest.raises(ValueError):
        flush(beyond)


@pytest.mark.parametrize("flushed", [False, True])
def test_what_a_killed_process_had_written_stays(file, flushed):
    code = f"""
    import sys, sharedmem, workers
    a = sharedmem.load(sys.argv[1], mmap_mode="r+")
    a[:] = 11
    if {flushed}:
        sharedmem.flush(a)
    workers.kill()
    """
    assert workers.was_killed(run_python(code, file)[0])
    assert (np.load(file) == 11).all()


def test_copies_and_readonly(file):
    a = load(file, mmap_mode="r+")
    assert sharedmem.asshared(a) is a
    assert not np.shares_memory(sharedmem.copy(a), a)
    assert type(sharedmem.asshared(np.asarray(a))) is sharedmem.SharedArray
    assert np.shares_memory(sharedmem.asshared(np.asarray(a)), a)
    r = sharedmem.readonly(a[::-2, 1:])
    assert same(r, a[::-2, 1:])
    assert attempts.outcomes(r) == attempts.EXPECTED
    a[-1, 1] = 5
    assert r[0, 0] == 5
    assert sharedmem.readonly(r) is r
    assert address(sharedmem.readonly(r.view(np.ndarray))) == address(r)


def test_the_module_is_imported_at_first_use():
    code = """
    import sys, sharedmem
    print(any(name.startswith(("sharedmem._mapped", "sharedmem._file_")) for name in sys.modules), end=" ")
    sharedmem.open_memmap, sharedmem.memmap, sharedmem.flush
    print("sharedmem._mapped" in sys.modules)
    """
    assert check_python(code) == "False True"


def test_threads_open_and_drop_one_file(file):
    code = """
    import sys, threading, sharedmem
    def work():
        for _ in range(300):
            a = sharedmem.load(sys.argv[1], mmap_mode="r")
            assert sharedmem.is_shared(a) and a[3, 1] == 13, a
            del a
    threads = [threading.Thread(target=work) for _ in range(6)]
    for t in threads: t.start()
    for t in threads: t.join()
    print(sum(sys.argv[1] in line for line in open("/proc/self/maps")))
    """
    assert check_python(code, file) == "0"


def test_a_file_is_opened_by_its_new_name_while_arrays_have_its_old_one(tmp_path):
    old, new = tmp_path / "numbers.tmp", tmp_path / "numbers"
    np.arange(1000, dtype=np.uint8).tofile(old)
    before = sharedmem.memmap(old)
    os.rename(old, new)
    after = sharedmem.memmap(new)
    assert (pickle.loads(pickle.dumps(after)) == before).all()
    assert (sharedmem.readonly(sharedmem.memmap(new, mode="r+")) == before).all()
