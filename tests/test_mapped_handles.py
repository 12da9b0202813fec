"""Handles of arrays in files that are refused: the file is another now, or the handle not what it was."""

import binascii
import os
import pickle
import random
import shutil

import numpy as np
import pytest
import workers
from mapped_files import file_of_numbers  # noqa: F401
from support import needs_namespaces, run_python

from sharedmem import StaleHandleError, load, memmap
from sharedmem._file_handles import load_mapped
from sharedmem._file_memory import find_place


def messages_of(file):
    """Handles of both modes, while the file is open and after this process has closed it."""
    return [pickle.dumps(load(file, mmap_mode=mode)[5:]) for mode in ("r", "r+")]


def check(messages, file, error, match):
    for message in messages:
        with pytest.raises(error, match=match) as raised:
            pickle.loads(message)
        assert type(raised.value) is error
        assert str(file) in str(raised.value)


@pytest.mark.parametrize("open_here", [False, True])
def test_a_file_that_was_replaced_or_removed(file, open_here):
    kept = load(file, mmap_mode="r") if open_here else None
    messages = messages_of(file)
    whole = file.read_bytes()
    moved = file.with_suffix(".moved")
    os.rename(file, moved)
    check(messages, file, FileNotFoundError, "No such file")
    file.write_bytes(whole)
    check(messages, file, StaleHandleError, "a different file now")
    os.remove(file)
    os.mkdir(file)
    check(messages, file, IsADirectoryError, "directory")
    os.rmdir(file)
    os.rename(moved, file)
    assert all((pickle.loads(message) == np.load(file)[5:]).all() for message in messages)
    del kept


@pytest.mark.parametrize("open_here", [False, True])
def test_a_pipe_in_the_place_of_a_file(file, open_here):
    kept = load(file, mmap_mode="r") if open_here else None
    messages = messages_of(file)
    os.remove(file)
    os.mkfifo(file)
    check(messages, file, ValueError, "is a pipe")
    del kept


@pytest.mark.needs_posix  # Windows shortens no file that is mapped
@pytest.mark.parametrize("open_here", [False, True])
def test_a_file_that_was_cut_short(file, open_here):
    kept = load(file, mmap_mode="r") if open_here else None
    messages = messages_of(file)
    whole = file.read_bytes()
    os.truncate(file, len(whole) - 1)
    check(messages, file, ValueError, "truncated")
    os.truncate(file, 0)
    check(messages, file, ValueError, "truncated")
    file.write_bytes(whole)
    assert all((pickle.loads(message) == np.load(file)[5:]).all() for message in messages)
    del kept


@pytest.mark.needs_linux  # it uses the numbers of removed files again
def test_an_inode_that_was_given_away_again(tmp_path):
    """If the file system records birth times, another file with the same inode number is recognized."""
    path = tmp_path / "raw"
    for _ in range(200):
        path.write_bytes(bytes(100))
        before = os.stat(path).st_ino
        message = pickle.dumps(memmap(path))
        os.remove(path)
        path.write_bytes(bytes(100))
        again = os.stat(path).st_ino
        with pytest.raises(StaleHandleError):
            pickle.loads(message)
        if again == before:
            return


def test_another_mount_namespace(file):
    needs_namespaces("--mount")
    message = pickle.dumps(load(file, mmap_mode="r"))
    code = """
    import pickle, sys
    try:
        pickle.loads(bytes.fromhex(sys.argv[1]))
    except Exception as error:
        print(type(error).__name__)
    """
    folder = file.parent
    os.mkdir(folder / "other")
    shutil.copy(file, folder / "other" / file.name)
    for shell, expected in (
        (f"mount -t tmpfs none {folder} || exit 77", "FileNotFoundError"),
        (f"mount --bind {folder}/other {folder} || exit 77", "StaleHandleError"),
    ):
        status, out, err = run_python(code, message.hex(), prefix=["unshare", "--mount"], shell=shell)
        if status == 77:
            pytest.skip("no file system can be mounted here")
        assert (status, err.decode(), out.decode().strip()) == (0, "", expected)


def test_a_worker_that_cannot_open_the_file_reports_it(file, context):
    message = load(file, mmap_mode="r")
    os.rename(file, file.with_suffix(".moved"))
    with context.Pool(1) as pool:
        with pytest.raises(FileNotFoundError):
            pool.apply(workers.echo, (message,))
        assert pool.apply(abs, (-3,)) == 3


def state_of(a):
    return a.__reduce_ex__(4)[1][0]


def with_checksum(data):
    return data + binascii.crc32(data).to_bytes(4, "little")


def test_altered_and_truncated_handles_are_refused(file):
    a = load(file, mmap_mode="r")
    state = state_of(a)
    for i in range(len(state)):
        altered = bytearray(state)
        altered[i] ^= 1 << i % 8
        with pytest.raises(ValueError, match="handle"):
            load_mapped(bytes(altered))
        with pytest.raises(ValueError, match="handle"):
            load_mapped(state[:i])
    for other in (None, "text", 5, bytearray(state)):
        with pytest.raises(TypeError):
            load_mapped(other)


def test_forged_handles_never_reach_outside_of_the_file(file):
    rng = random.Random(5)
    a = load(file, mmap_mode="r")
    number = 0
    for _ in range(5000):
        data = bytearray(state_of(rng.choice((a, a[::-1], a.T, a[3:9, ::-2])))[:-4])
        for _ in range(rng.choice((1, 1, 2, 4))):
            at = rng.randrange(len(data))
            if rng.random() < 0.5:
                data[at] ^= 1 << rng.randrange(8)
            else:
                wild = rng.choice((0, 1, -1, 1 << 62, -1 << 63, (1 << 63) - 1, 4096)).to_bytes(
                    8, "little", signed=True
                )
                data[at : at + 8] = wild[: len(data) - at]
        try:
            b = load_mapped(
                with_checksum(bytes(data)), rng.choice((None, np.dtype("f8"), np.dtype("O"), 5, "f8"))
            )
        except (ValueError, OSError):
            continue
        number += 1
        assert not b.dtype.hasobject
        b.tolist() if b.size < 10_000 else b.flat[0]
        assert find_place(b) is not None
    assert number > 20  # where a pointer has 32 bits, most 64-bit numbers are refused at once


def test_bad_classes_and_dtypes(file):
    a = load(file, mmap_mode="r").view([("x", "f8")])
    function, (state, dtype) = a.__reduce_ex__(4)[:2]
    assert function(state, dtype).dtype == a.dtype
    for bad in (None, "f8", np.dtype("O"), np.dtype("f4"), np.dtype("V0"), 5, np.dtype(("f4", (2,)))):
        with pytest.raises(ValueError, match="dtype"):
            function(state, bad)
    for bad in (np.ndarray, int, 5):
        with pytest.raises(ValueError, match="class"):
            function(state, dtype, bad)
