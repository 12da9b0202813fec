"""load and fromfile where a file does not know its size: devices, /proc, pipes, sockets, growing files."""

import contextlib
import gzip
import io
import os
import socket
import sys
import threading

import numpy as np
import pytest
from samples import sample
from test_creation import check_like

import sharedmem


def feed(data, sink):
    """Writes the bytes in pieces of odd sizes as long as there is a reader, and closes the file."""
    # Windows says EINVAL of a pipe.
    gone = (OSError,) if sys.platform == "win32" else (BrokenPipeError, ConnectionResetError)
    with contextlib.suppress(*gone), sink:
        for begin in range(0, len(data), 4999):
            sink.write(data[begin : begin + 4999])


@contextlib.contextmanager
def fed(source, sink, data):
    """`source` opened for reading, while a thread writes into `sink`."""
    thread = threading.Thread(target=feed, args=(data, sink))
    thread.start()
    try:
        with source:
            yield source
    finally:
        thread.join()


def through_a_pipe(data, buffering=-1):
    ours, theirs = os.pipe()
    return fed(open(ours, "rb", buffering), open(theirs, "wb", 0), data)


def through_a_socket(data, buffering=-1):
    ours, theirs = socket.socketpair()
    with ours, theirs:  # the files keep them open
        unbuffered = {} if buffering else {"buffering": 0}
        return fed(ours.makefile("rb", **unbuffered), theirs.makefile("wb", buffering=0), data)


streams = pytest.mark.parametrize("through", [through_a_pipe, through_a_socket])
buffers = pytest.mark.parametrize("buffering", [0, -1])


@pytest.mark.needs_posix
@pytest.mark.parametrize("count", [0, 1, 100, 3_000_000])
def test_a_device_without_an_end(count):
    check_like(sharedmem.fromfile("/dev/zero", "u1", count), np.zeros(count, "u1"))
    with open("/dev/zero", "rb") as file:
        check_like(sharedmem.fromfile(file, "f4", count, offset=5), np.zeros(count, "f4"))


@pytest.mark.needs_posix
def test_a_device_without_an_end_needs_a_number():
    with pytest.raises(ValueError, match="count"):
        sharedmem.fromfile("/dev/zero", "u1")


@pytest.mark.parametrize("count", [-1, 5, 10**9])
@pytest.mark.parametrize("offset", [0, 2])
def test_files_of_the_kernel(count, offset):
    """They say that they are empty, or have a page of bytes."""
    for path in ("/proc/version", "/proc/self/status", "/sys/kernel/mm/transparent_hugepage/enabled"):
        if not os.path.exists(path):
            continue
        with open(path, "rb") as file:
            expected = file.read()[offset:]
        got = sharedmem.fromfile(path, "u1", count, offset=offset)
        size = len(expected) if count < 0 else min(count, len(expected))
        if path == "/proc/self/status":  # it changes all the time
            assert got.size >= min(size, 500)
        else:
            assert got.tobytes() == expected[:size]


@pytest.mark.skipif(not os.path.exists("/proc/kallsyms"), reason="this kernel lists no symbols")
def test_many_bytes_of_the_kernel():
    """More than is allocated at first, so that the array has to grow."""
    got = sharedmem.fromfile("/proc/kallsyms", "u1")
    with open("/proc/kallsyms", "rb") as file:
        assert got.tobytes() == file.read()


@streams
@buffers
@pytest.mark.parametrize("count", [-1, 0, 3, 70_000, 125_000, 10**12])
def test_fromfile_of_a_stream(through, buffering, count):
    data = sample(125_000, "f4")
    with through(data.tobytes(), buffering) as file:
        got = sharedmem.fromfile(file, "f4", count)
    check_like(got, data if count < 0 else data[:count])
    assert sharedmem.is_shared(got) or count == 0


@streams
@buffers
def test_fromfile_of_a_stream_continues_where_it_stopped(through, buffering):
    data = sample(40_000, "i4")
    with through(data.tobytes() + b"ab", buffering) as file:
        check_like(sharedmem.fromfile(file, "i4", 7), data[:7])
        check_like(sharedmem.fromfile(file, "i4", 7, offset=12), data[10:17])
        check_like(sharedmem.fromfile(file, "i4", 20_000), data[17:20_017])
        with pytest.raises(ValueError, match="negative"):
            sharedmem.fromfile(file, "i4", offset=-4)
        check_like(sharedmem.fromfile(file, "i4"), data[20_017:])  # without the incomplete item at the end
        assert sharedmem.fromfile(file, "i4", offset=1000).size == 0


def test_fromfile_of_a_named_pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    data = sample(50_000)
    with open(path, "r+b", 0) as sink:  # opened for both, so that opening does not wait for a reader
        thread = threading.Thread(target=feed, args=(data.tobytes(), sink))
        thread.start()
        check_like(sharedmem.fromfile(path), data)
        thread.join()


@streams
@buffers
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_load_from_a_stream(through, buffering, version):
    arrays = [sample((100, 500), [("é" if version == (3, 0) else "e", "f4")]), sample(7, "i2")]
    file = io.BytesIO()
    for a in arrays:
        np.lib.format.write_array(file, a, version)
    with through(file.getvalue(), buffering) as stream:
        for a in arrays:
            check_like(sharedmem.load(stream), a)


@pytest.mark.parametrize("read", [lambda f: sharedmem.fromfile(f, "u1"), lambda f: sharedmem.load(f)])
@pytest.mark.parametrize("version", [(1, 0), (3, 0)])
def test_what_has_not_come_yet_is_not_the_end(read, version):
    """A file that does not block says that there is nothing: the array must not end there."""
    data = io.BytesIO()
    np.lib.format.write_array(data, sample(1000), version)
    for size in (0, 9, 11, 200, 1000):
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        with open(ours, "rb", 0) as file, open(theirs, "wb", 0) as sink:
            sink.write(data.getvalue()[:size])
            with pytest.raises(BlockingIOError):
                read(file)


class Changing(io.FileIO):
    """A file that another program changes between two calls to read."""

    def __init__(self, path, change):
        super().__init__(path)
        self.change = change

    def readinto(self, buffer):
        with open(self.name, "r+b") as other:
            self.change(other)
        return super().readinto(buffer)


def test_a_file_that_grows_while_it_is_read(tmp_path):
    path = tmp_path / "raw"
    sample(1000).tofile(path)

    def grow(file):
        file.seek(0, os.SEEK_END)
        file.write(bytes(8000))

    with Changing(path, grow) as file:
        check_like(sharedmem.fromfile(file), sample(1000))


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    path = tmp_path / "raw"
    sample(1000).tofile(path)
    with Changing(path, lambda file: file.truncate(4004)) as file:
        check_like(sharedmem.fromfile(file), sample(1000)[:500])
    np.save(tmp_path / "a.npy", sample(1000))
    before = sharedmem.stats()["live_blocks"]
    with Changing(tmp_path / "a.npy", lambda file: file.truncate(4000)) as file, pytest.raises(ValueError):
        sharedmem.load(file)
    assert sharedmem.stats()["live_blocks"] == before


def test_an_array_that_got_shorter_keeps_no_more_memory(tmp_path):
    path = tmp_path / "raw"
    path.write_bytes(bytes(2**24))
    before = sharedmem.stats()["live_bytes"]
    with Changing(path, lambda file: file.truncate(800)) as file:
        a = sharedmem.fromfile(file)
    assert a.size == 100
    assert sharedmem.stats()["live_bytes"] - before < 2**16


@pytest.mark.parametrize("count", [-1, 10, 400_000])
def test_a_compressed_file_has_another_size_than_its_descriptor(tmp_path, count):
    data = np.zeros(300_000)
    data[7::1000] = 1
    with gzip.open(tmp_path / "raw.gz", "wb") as file:
        file.write(data.tobytes())
    with gzip.open(tmp_path / "raw.gz", "rb") as file:
        check_like(sharedmem.fromfile(file, count=count), data if count < 0 else data[:count])
