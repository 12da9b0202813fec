"""Pickles of arrays in files: handles, whose receivers open the files."""

import io
import os
import pickle

import attempts
import numpy as np
import pytest
import workers
from mapped_files import file_of_numbers, mappings  # noqa: F401
from support import KINDS, Remote, address, check_python, dumps, join, same

import sharedmem
from sharedmem import load, open_memmap

VIEWS = {
    "whole": lambda a: a,
    "row": lambda a: a[3],
    "one element": lambda a: a[3:4, 1:2],
    "transposed": lambda a: a.T,
    "negative strides": lambda a: a[::-1, ::-1],
    "both": lambda a: a[28:3:-5, 1:3].T,
    "stride of zero": lambda a: np.broadcast_to(a[2], (5, 4), subok=True),
    "no axes": lambda a: a[3, 2, ...],
    "other dtype": lambda a: a.view("i4"),
    "record": lambda a: a.view([("x", "f8"), ("y", ">i8")]),
}


class Marked(sharedmem.SharedArray):
    """A subclass that is loaded as such."""


@pytest.mark.parametrize("mode", ["r", "r+"])
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_views_are_the_same_bytes_after_a_pickle(file, view, mode):
    a = view(load(file, mmap_mode=mode))
    for protocol in (2, 4, 5):
        b = pickle.loads(pickle.dumps(a, protocol))
        assert type(b) is sharedmem.SharedArray
        assert same(a, b)
        assert b.strides == a.strides
        assert b.flags.writeable == a.flags.writeable
        assert not a.flags.writeable or address(b) == address(a)
    assert same(a, pickle.loads(dumps(a)))
    assert len(dumps(a)) <= 400
    assert len(pickle.dumps(a)) <= 400


def test_a_message_of_one_array_is_what_a_pickler_writes(file):
    a = load(file, mmap_mode="r+")
    for b in (a, a[::-2].T, a.view("S8")):
        pickler = io.BytesIO()
        pickle.Pickler(pickler, 4).dump(b)
        assert (
            pickle.loads(dumps(b)).__reduce_ex__(4)[1] == pickle.loads(pickler.getvalue()).__reduce_ex__(4)[1]
        )
        assert len(dumps(b)) <= len(pickler.getvalue())


@pytest.mark.parametrize("kind", KINDS)
def test_in_other_processes(file, kind):
    a = load(file, mmap_mode="r+")
    r = load(file, mmap_mode="r")
    with Remote(kind) as child:
        child.call(workers.store, a[::-1], (0, 0), -5.0)
        assert a[29, 0] == -5
        assert r[29, 0] == -5
        assert same(child.call(attempts.send_on, a.T), a.T[::-1])
        assert child.call(attempts.try_to_write, r[4:9]) == (attempts.EXPECTED, attempts.EXPECTED, False)
        back = child.call(workers.echo, r[::3])
        assert address(back) == address(r)
    assert (np.load(file)[29] == [-5, 117, 118, 119]).all()


def test_a_read_only_view_of_a_writable_file_arrives_read_only(file):
    a = load(file, mmap_mode="r+")
    v = a[1:]
    v.flags.writeable = False
    assert attempts.outcomes(pickle.loads(pickle.dumps(v))) == attempts.EXPECTED
    assert attempts.outcomes(pickle.loads(pickle.dumps(sharedmem.readonly(a)))) == attempts.EXPECTED


def double(a):
    a *= 2
    return a[::-1]


def take(queue, results):
    while (a := queue.get()) is not None:
        results.put(double(a))


def test_by_queues_and_pools(file, context):
    a = load(file, mmap_mode="r+")
    expected = np.load(file)
    queue, results = context.Queue(), context.Queue()
    worker = context.Process(target=take, args=(queue, results))
    worker.start()
    for rows in (slice(0, 3), slice(5, 9), slice(20, 10, -3)):
        queue.put(a[rows])
        back = results.get(timeout=60)
        expected[rows] *= 2
        assert address(back) == address(a[rows][::-1])
        assert (back == expected[rows][::-1]).all()
    queue.put(None)
    assert join(worker) == [0]
    with context.Pool(2) as pool:
        parts = pool.map(double, [a[i : i + 10] for i in range(0, 30, 10)])
    expected *= 2
    assert (a == expected).all()
    assert all((part == a[i : i + 10][::-1]).all() for part, i in zip(parts, range(0, 30, 10), strict=True))


def test_mixed_with_arrays_in_memory(file):
    a, b = load(file, mmap_mode="r"), sharedmem.ones(5)
    c, d, e, f = pickle.loads(pickle.dumps([a, b, a[3:], {"b": b[1:]}]))
    assert (address(c), address(d), address(e), address(f["b"])) == tuple(map(address, (a, b, a[3:], b[1:])))


def test_a_subclass(file):
    a = load(file, mmap_mode="r+").view(Marked)
    b = pickle.loads(pickle.dumps(a[3:]))
    assert type(b) is Marked
    assert address(b) == address(a[3:])


@pytest.mark.parametrize(
    "dtype", ["?", ">i4", "c16", "U5", "S3", "M8[ns]", "V7", [("a", "i4"), ("b", ">f8", (2,))]], ids=str
)
def test_dtypes(tmp_path, dtype):
    a = open_memmap(tmp_path / "a.npy", "w+", dtype, (3, 2), fortran_order=True)
    b = pickle.loads(pickle.dumps(a[1:]))
    assert b.dtype == a.dtype
    assert address(b) == address(a[1:])


def test_many_handles_of_a_file_are_one_mapping_and_no_descriptor(file):
    a = load(file, mmap_mode="r")
    messages = [pickle.dumps(a[i % 30 :]) for i in range(10_000)]
    del a
    assert mappings(file) == []
    before = len(os.listdir("/proc/self/fd"))
    arrays = [pickle.loads(message) for message in messages]
    assert mappings(file) == ["r--s"]
    assert len(os.listdir("/proc/self/fd")) == before
    assert arrays[29].shape == (1, 4)
    del arrays
    assert mappings(file) == []


def test_a_forked_child_keeps_what_its_parent_drops(file):
    arrays = [load(file, mmap_mode="r+")]
    reading, writing = os.pipe()

    def child():
        os.read(reading, 1)
        arrays[0][3] = 8
        assert (pickle.loads(pickle.dumps(arrays[0][3])) == 8).all()

    pid = os.fork()
    if pid == 0:
        workers.exit_with(child)
    arrays.clear()
    os.write(writing, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(reading)
    os.close(writing)
    assert (np.load(file)[3] == 8).all()


def test_the_path_does_not_depend_on_the_working_directory(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    message = pickle.dumps(load("a.npy", mmap_mode="r"))
    monkeypatch.chdir("/")
    assert pickle.loads(message)[3, 0] == 12


def test_functions_that_write_files_write_the_data(file, tmp_path):
    a = load(file, mmap_mode="r+")
    with open(tmp_path / "a.pickle", "wb") as saved:
        pickle.dump({"a": a}, saved)
    np.save(tmp_path / "b.npy", a[::2])
    os.rename(file, tmp_path / "away")
    with open(tmp_path / "a.pickle", "rb") as saved:
        b = pickle.load(saved)["a"]
    assert type(b) is np.ndarray
    assert same(b, np.asarray(a))
    assert same(np.load(tmp_path / "b.npy"), np.asarray(a[::2]))
    with sharedmem.pickle_by_value():
        assert type(pickle.loads(pickle.dumps(a))) is np.ndarray


def test_copies_are_private_and_pickle_by_value(file):
    a = load(file, mmap_mode="r")
    b = pickle.loads(pickle.dumps(a.copy()))
    os.rename(file, file.with_suffix(".moved"))
    assert same(np.asarray(b), np.asarray(a))
    assert same(np.asarray(pickle.loads(pickle.dumps(a[[1, 2]]))), np.asarray(a[1:3]))


def test_bytes_outside_of_the_file_go_by_value(file):
    a = load(file, mmap_mode="r")
    within = np.lib.stride_tricks.as_strided(a, (120,), (8,), subok=True)
    assert address(pickle.loads(pickle.dumps(within))) == address(within)
    beyond = np.lib.stride_tricks.as_strided(a, (121,), (8,), subok=True)  # the rest of the last page is zero
    copied = pickle.loads(pickle.dumps(beyond))
    assert not sharedmem.is_shared(copied)
    assert (copied == beyond).all()


def test_after_a_fork_in_the_middle_of_opening(file):
    """The table of files is locked around a fork."""
    code = """
    import os, sys, threading, warnings, sharedmem
    warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads
    stop = False
    def work():
        while not stop:
            sharedmem.load(sys.argv[1], mmap_mode="r")
    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads: t.start()
    codes = set()
    for _ in range(50):
        pid = os.fork()
        if pid == 0:
            a = sharedmem.load(sys.argv[1], mmap_mode="r")
            os._exit(int(a[3, 0]))
        codes.add(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    stop = True
    for t in threads: t.join()
    print(codes)
    """
    assert check_python(code, file) == "{12}"
