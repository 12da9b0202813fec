"""Arrays in files: what cannot be opened or made, and what is said then."""

import os
import socket
import tempfile

import numpy as np
import pytest
from mapped_files import file_of_numbers, mappings  # noqa: F401
from support import check_python, in_fork, needs_64_bit, needs_namespaces, needs_root, run_python

import sharedmem
from sharedmem import load, memmap, open_memmap


def test_no_such_file_no_rights_a_folder(tmp_path):
    for opened in (lambda f: load(f, mmap_mode="r"), open_memmap, memmap):
        with pytest.raises(FileNotFoundError, match="nothing"):
            opened(tmp_path / "nothing")
        with pytest.raises(IsADirectoryError):
            opened(tmp_path)
    with pytest.raises(IsADirectoryError):
        open_memmap(tmp_path, "w+", "f4", 3)
    with pytest.raises(FileNotFoundError):
        open_memmap(tmp_path / "no folder" / "a.npy", "w+", "f4", 3)


@needs_root
def test_another_users_file(file):
    os.chmod(file, 0o444)

    def as_somebody():
        os.setuid(65534)
        assert load(file, mmap_mode="r").sum() == 7140
        with pytest.raises(PermissionError):
            load(file, mmap_mode="r+")
        with pytest.raises(PermissionError):
            open_memmap(file, "w+", "f4", 3)

    for folder in file.parents[:3]:
        os.chmod(folder, 0o755)
    assert in_fork(as_somebody) == 0
    assert np.load(file).shape == (30, 4)


def test_files_that_are_not_regular(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for path, kind in (
            (tmp_path / "pipe", "pipe"),
            (tmp_path / "socket", "socket"),
            ("/dev/zero", "device"),
        ):
            for mode in ("r", "r+"):
                with pytest.raises(ValueError, match=f"is a {kind}"):
                    memmap(path, mode=mode)
            with pytest.raises(ValueError, match=f"is a {kind}"):
                memmap(path, mode="w+", shape=3)
            assert os.path.exists(path)


def test_invalid_arguments(file, tmp_path):
    for mode in ("c", "copyonwrite"):
        with pytest.raises(ValueError, match="not shared"):
            load(file, mmap_mode=mode)
    for mode in ("w+", "x", "", "rb", 5, b"r"):
        with pytest.raises(ValueError, match="mode must be one of"):
            load(file, mmap_mode=mode)
    for opened in (open_memmap, memmap):
        with pytest.raises(ValueError, match="mode must be one of"):
            opened(file, "a") if opened is open_memmap else opened(file, mode="a")
    with open(file, "rb") as already:
        for call in (
            lambda: load(already, mmap_mode="r"),
            lambda: memmap(already),
            lambda: open_memmap(already),
        ):
            with pytest.raises(TypeError, match="a path is needed"):
                call()
    with pytest.raises(TypeError, match="object"):
        open_memmap(tmp_path / "a.npy", "w+", "O", 3)
    with pytest.raises(TypeError, match="object"):
        memmap(file, "O")
    with pytest.raises(ValueError, match="shape"):
        open_memmap(tmp_path / "a.npy", "w+", "f4")
    with pytest.raises(ValueError, match="shape"):
        memmap(tmp_path / "a", "f4", "w+")
    with pytest.raises(ValueError, match="negative"):
        open_memmap(tmp_path / "a.npy", "w+", "f4", (3, -1))
    with pytest.raises(ValueError, match="negative"):
        memmap(file, offset=-1)
    with pytest.raises(ValueError, match="order"):
        memmap(file, order="K")
    with pytest.raises(ValueError, match=r"null (byte|character)"):
        memmap("a\0b")
    with pytest.raises(ValueError, match="no bytes"):
        memmap(file, "V0")
    with pytest.raises(ValueError, match="whole number"):
        memmap(file, "V7")
    with pytest.raises(ValueError, match=r"os\.truncate"):
        memmap(file, "f8", "r+", shape=1000)
    with pytest.raises(ValueError, match=r"lies beyond the end|larger than any file"):
        memmap(file, offset=1 << 40)
    with pytest.raises(ValueError, match="too big"):
        memmap(tmp_path / "b", "f8", "w+", shape=(1 << 40, 1 << 40))
    with pytest.raises((OSError, ValueError), match=r"File too large|No space|Cannot allocate|too big"):
        memmap(tmp_path / "b", "f8", "w+", shape=1 << 59)
    assert sorted(os.listdir(tmp_path)) == ["a.npy"]


def test_files_that_are_not_npy_files(file, tmp_path):
    whole = file.read_bytes()
    broken = tmp_path / "broken.npy"
    for data in (b"", b"\x93NUM", b"hello " * 50, whole[:100], whole[:-1], b"\x93NUMPY\x07\x00" + whole[8:]):
        broken.write_bytes(data)
        with pytest.raises(ValueError):
            load(broken, mmap_mode="r")
    np.save(broken, np.array([{}, 1], object), allow_pickle=True)
    with pytest.raises(TypeError, match="object"):
        load(broken, mmap_mode="r")
    assert mappings(broken) == []


def test_a_full_disk_is_an_error_at_creation():
    needs_namespaces("--mount")
    code = """
    import errno, os, sharedmem
    os.chdir("/mnt")
    for make, name in (sharedmem.open_memmap, "a.npy"), (sharedmem.memmap, "b"):
        try:
            make(name, mode="w+", dtype="u1", shape=4 << 20)
            print("made", end=" ")
        except OSError as error:
            print(errno.errorcode[error.errno], os.listdir(), end=" ")
    a = sharedmem.open_memmap("a.npy", "w+", "u1", 900_000)
    a[:] = 1
    print(a.sum(), end=" ")
    """
    status, out, err = run_python(
        code, prefix=["unshare", "--mount"], shell="mount -t tmpfs -o size=1m none /mnt || exit 77"
    )
    if status == 77:
        pytest.skip("no file system can be mounted here")
    assert (status, err.decode()) == (0, "")
    assert out.decode().split() == ["ENOSPC", "[]", "ENOSPC", "[]", "900000"]


@needs_64_bit
def test_no_address_space():
    code = """
    import errno, os, resource, sys, sharedmem
    os.truncate(os.open(sys.argv[1], os.O_CREAT | os.O_RDWR), 1 << 33)
    memmap = sharedmem.memmap
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 32), hard))
    try:
        memmap(sys.argv[1])
    except OSError as error:
        print(errno.errorcode[error.errno])
    """
    with tempfile.TemporaryDirectory() as folder:
        assert check_python(code, os.path.join(folder, "large")) == "ENOMEM"


def test_the_base_is_not_made_otherwise(file):
    base = load(file, mmap_mode="r").base
    with pytest.raises(TypeError, match="cannot be created directly"):
        type(base)()
    empty = type(base).__new__(type(base))
    for use in (
        len,
        memoryview,
        lambda b: b.path,
        lambda b: b.identity,
        lambda b: b.writable,
        lambda b: b.flush(0, 0),
    ):
        with pytest.raises((ValueError, BufferError)):
            use(empty)


@pytest.mark.needs_posix  # Windows shortens no file that is mapped
def test_a_file_that_was_cut_short_is_opened_as_it_is_now(tmp_path):
    path = tmp_path / "numbers"
    np.arange(1000, dtype=np.uint8).tofile(path)
    before = sharedmem.memmap(path)
    os.truncate(path, 500)
    assert sharedmem.memmap(path).shape == (500,)
    with pytest.raises(ValueError, match="500"):
        sharedmem.memmap(path, shape=(1000,))
    assert before.shape == (1000,)


@pytest.mark.needs_posix  # names of Windows are text
def test_an_error_names_a_file_whose_name_is_not_valid_utf_8(tmp_path):
    missing = os.fsencode(tmp_path) + b"/\xff"
    with pytest.raises(FileNotFoundError) as caught:
        memmap(missing)
    assert caught.value.filename == missing


@pytest.mark.parametrize("shape", [None, 0, 3])
def test_an_offset_beyond_the_end(tmp_path, shape):
    """Whatever the shape is; at the very end there is room for an array without elements."""
    path = tmp_path / "x.bin"
    path.write_bytes(b"0" * 368)
    for offset in (369, 400):
        with pytest.raises(ValueError, match=rf"offset {offset} lies beyond the end.*x\.bin.* 368 bytes"):
            memmap(path, "f8", offset=offset, shape=shape)
    assert memmap(path, "f8", offset=368, shape=0).shape == memmap(path, "f8", offset=368).shape == (0,)
