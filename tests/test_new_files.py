"""Files that `open_memmap` and `memmap` make in place of others: these stay until the new one is complete."""

import os
import threading
import zipfile

import numpy as np
import pytest
import support
import workers
from naming import TIMEOUT, program, said

import sharedmem


def test_a_full_disk_leaves_the_old_file():
    support.needs_namespaces("--mount")
    code = """
    import errno, os, numpy as np, sharedmem
    os.chdir("/mnt")
    np.save("a.npy", np.arange(1000))
    for make, name in (sharedmem.open_memmap, "a.npy"), (sharedmem.memmap, "a.npy"):
        try:
            make(name, mode="w+", dtype="u1", shape=4 << 20)
        except OSError as error:
            print(errno.errorcode[error.errno], os.listdir(), np.load("a.npy").sum())
    """
    status, out, err = support.run_python(
        code, prefix=["unshare", "--mount"], shell="mount -t tmpfs -o size=1m none /mnt || exit 77"
    )
    if status == 77:
        pytest.skip("no file system can be mounted here")
    assert (status, err.decode()) == (0, "")
    assert out.decode().splitlines() == ["ENOSPC ['a.npy'] 499500"] * 2


@pytest.mark.needs_posix  # Windows replaces no file that is open
def test_there_is_a_whole_file_at_any_moment(tmp_path):
    path = tmp_path / "a.npy"
    sharedmem.open_memmap(path, "w+", "i4", 100)
    seen, over = set(), threading.Event()

    def read():
        while not over.is_set():
            try:
                seen.add(np.load(path).shape)
            except (OSError, ValueError) as error:
                seen.add(repr(error))

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(300):
        sharedmem.open_memmap(path, "w+", "i4", 100 + n % 2)
    over.set()
    reader.join()
    assert seen
    assert seen <= {(100,), (101,)}
    assert os.listdir(tmp_path) == ["a.npy"]


@pytest.mark.needs_posix  # nor one that is mapped
def test_several_may_make_one_file_at_once(tmp_path):
    path, failed = tmp_path / "a", []

    def make(n):
        try:
            for _ in range(50):
                sharedmem.memmap(path, "i4", "w+", shape=100)[:] = n
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=make, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(set(np.fromfile(path, "i4").tolist())) == 1
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.needs_posix
def test_a_file_that_its_owner_may_not_write(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"before")
    os.chmod(path, 0o444)
    a = sharedmem.memmap(path, "u1", "w+", shape=3)
    a[:] = 7
    assert path.read_bytes() == b"\7\7\7"
    assert os.stat(path).st_mode & 0o777 == 0o444


def test_the_kernel_knows_the_file_by_its_name(tmp_path):
    a = sharedmem.memmap(tmp_path / "new", "u1", "w+", shape=3)
    with open("/proc/self/maps") as maps:
        assert any(line.rstrip().endswith(str(tmp_path / "new")) for line in maps)
    assert a.sum() == 0


def test_a_process_that_is_killed_leaves_the_old_file_and_little_else(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(5))
    code = "print('there', flush=True)\nwhile True: sharedmem.open_memmap(sys.argv[1], 'w+', 'i8', 1_000_000)"
    for _ in range(5):
        with program(code, str(path)) as maker:
            assert said(maker) == "there"
            workers.kill(maker.pid)
            assert workers.was_killed(maker.wait(TIMEOUT))
        assert np.load(path).shape in ((5,), (1_000_000,))


def header(text):
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(64)


@pytest.mark.parametrize(
    "text",
    [
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (True,)}",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -5)}",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 0)}",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 4)}",
        b"{'descr': '<f8', 'fortran_order': 2, 'shape': (1,)}",
        b"{'descr': 7, 'fortran_order': False, 'shape': (1,)}",
        b"{'descr': '<f8', 3: False, 'shape': (1,)}",
        b"{[]: 1}",
        b"(" * 5000 + b")" * 5000,
        b"[" * 30000,
        b"",
    ],
)
def test_invalid_headers(tmp_path, text):
    path = tmp_path / "a.npy"
    path.write_bytes(header(text))
    for read in sharedmem.open_memmap, sharedmem.load:
        with pytest.raises((ValueError, MemoryError) if b"4611686018427387904" in text else ValueError):
            read(path)


@pytest.mark.parametrize("order", ["C", "F"])
def test_what_can_be_made_can_be_opened(tmp_path, order):
    path = tmp_path / "a.npy"
    dtype = np.dtype([(f"field{n}", "f4") for n in range(1500)])
    made = sharedmem.open_memmap(path, "w+", dtype, (2, 3), order == "F")
    again = sharedmem.open_memmap(path)
    assert (again.dtype, again.shape, again.strides) == (dtype, (2, 3), made.strides)
    assert sharedmem.load(path).dtype == dtype


def test_a_dtype_that_no_file_can_be_opened_with_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(3))
    dtype = [(f"{'x' * 200}{n}", "f4") for n in range(6000)]
    with pytest.raises(ValueError, match="1048576"):
        sharedmem.open_memmap(path, "w+", dtype, 1)
    assert np.load(path).tolist() == [0, 1, 2]


def test_an_archive_is_recognized(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, numbers=np.arange(5))
    for mode in None, "r":
        with pytest.raises(ValueError, match="archive of arrays"):
            sharedmem.load(path, mmap_mode=mode)
    with zipfile.ZipFile(path) as archive, archive.open("numbers.npy") as member:
        assert sharedmem.load(member).tolist() == [0, 1, 2, 3, 4]


def test_where_a_file_cannot_be_made_without_a_name():
    support.needs_namespaces("--mount")
    code = """
    import os, numpy as np, sharedmem, tempfile
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for n in 3, 5:
            a = sharedmem.open_memmap("a.npy", "w+", "i4", n)
            a[:] = n
            print(np.load("a.npy").tolist(), os.listdir())
        try:
            sharedmem.memmap("a.npy", "u1", "w+", shape=1 << 60)
        except OSError:
            print(np.load("a.npy").tolist(), os.listdir())
    """
    status, out, err = support.run_python(
        code, prefix=["unshare", "--mount"], shell="mount -t tmpfs none /proc || exit 77"
    )
    if status == 77:
        pytest.skip("/proc cannot be hidden here")
    assert (status, err.decode()) == (0, "")
    assert out.decode().splitlines() == [
        "[3, 3, 3] ['a.npy']",
        "[5, 5, 5, 5, 5] ['a.npy']",
        "[5, 5, 5, 5, 5] ['a.npy']",
    ]
