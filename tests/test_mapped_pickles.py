"""Pickles of arrays in files: handles that are opened by whoever loads them."""

import binascii
import io
import os
import pickle
import random
import shutil

import attempts
import numpy as np
import pytest
import workers
from support import KINDS, Remote, address, check_python, dumps, join, needs_namespaces, run_python, same

import sharedmem
from sharedmem import StaleHandleError, load, memmap, open_memmap
from sharedmem._file_handles import load_mapped
from sharedmem._file_memory import find_place

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


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(120.0).reshape(30, 4))
    return path


def mappings(path):
    with open("/proc/self/maps") as maps:
        return [line.split()[1] for line in maps if line.rstrip().endswith(str(path))]


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


# -- files that are not there any more as they were


def messages_of(file):
    """Handles of both modes, while the file is open and after nobody here has it any more."""
    return [pickle.dumps(load(file, mmap_mode=mode)[5:]) for mode in ("r", "r+")]


@pytest.mark.parametrize("open_here", [False, True])
def test_a_file_that_was_replaced_removed_or_cut_short(file, open_here):
    kept = load(file, mmap_mode="r") if open_here else None
    messages = messages_of(file)
    whole = file.read_bytes()

    def check(error, match):
        for message in messages:
            with pytest.raises(error, match=match) as raised:
                pickle.loads(message)
            assert type(raised.value) is error
            assert str(file) in str(raised.value)

    moved = file.with_suffix(".moved")
    os.rename(file, moved)
    check(FileNotFoundError, "No such file")
    file.write_bytes(whole)
    check(StaleHandleError, "another file now")
    os.remove(file)
    os.mkdir(file)
    check(IsADirectoryError, "directory")
    os.rmdir(file)
    os.mkfifo(file)
    check(ValueError, "is a pipe")
    os.remove(file)
    os.rename(moved, file)
    assert all((pickle.loads(message) == np.load(file)[5:]).all() for message in messages)
    os.truncate(file, len(whole) - 1)
    check(ValueError, "cut short")
    os.truncate(file, 0)
    check(ValueError, "cut short")
    file.write_bytes(whole)
    assert all((pickle.loads(message) == np.load(file)[5:]).all() for message in messages)
    del kept


def test_an_inode_that_was_given_away_again(tmp_path):
    """Where the file system says when a file was made, another one with the same number is told apart."""
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
    os.remove(file)
    with context.Pool(1) as pool:
        with pytest.raises(FileNotFoundError):
            pool.apply(double, (message,))
        assert pool.apply(abs, (-3,)) == 3


# -- handles that are not what they were


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
    assert number > 50


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


# -- what is saved


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
    os.remove(file)
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
    import os, sys, threading, sharedmem
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
