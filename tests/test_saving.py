"""What is written into a file holds the data; what goes to another process stays a handle."""

import bz2
import contextlib
import gc
import gzip
import importlib.util
import inspect
import io
import lzma
import os
import pickle
import socket
import tempfile
import threading
import zipfile

import numpy as np
import pytest
from support import check_python

import sharedmem
from sharedmem import StaleHandleError

# What is tried: the module that is needed, statements that write `what` into `path`, and an expression that
# reads it in another program.
WAYS = {
    "pickle.dump": ("", "with open(path, 'wb') as f: pickle.dump(what, f)", "pickle.load(open(path, 'rb'))"),
    "gzip": ("gzip", "with gzip.open(path, 'wb') as f: pickle.dump(what, f)", "pickle.load(gzip.open(path))"),
    "np.save": (
        "",
        "np.save(path, np.array([what, None], object))",
        "np.load(path + '.npy', allow_pickle=True)[0]",
    ),
    "np.savez": (
        "",
        "np.savez(path, x=np.array([what, None], object))",
        "np.load(path + '.npz', allow_pickle=True)['x'][0]",
    ),
    "ndarray.dump": ("", "np.array([what, None], object).dump(path)", "np.load(path, allow_pickle=True)[0]"),
    "shelve": (
        "shelve",
        "with shelve.open(path) as shelf: shelf['x'] = what",
        "shelve.open(path, 'r')['x']",
    ),
    "shelve, writeback": (
        "shelve",
        "with shelve.open(path, writeback=True) as shelf: shelf['x'] = {}; shelf['x']['y'] = what",
        "shelve.open(path, 'r')['x']['y']",
    ),
    "cloudpickle": (
        "cloudpickle",
        "with open(path, 'wb') as f: cloudpickle.dump(what, f)",
        "pickle.load(open(path, 'rb'))",
    ),
    "dill": ("dill", "with open(path, 'wb') as f: dill.dump(what, f)", "dill.load(open(path, 'rb'))"),
    "joblib.dump": ("joblib", "joblib.dump(what, path)", "joblib.load(path)"),
    "joblib.dump, compressed": ("joblib", "joblib.dump(what, path, compress=3)", "joblib.load(path)"),
    "pandas": ("pandas", "pandas.to_pickle(what, path)", "pandas.read_pickle(path)"),
    "pandas, bz2": (
        "pandas",
        "pandas.Series([what, None]).to_pickle(path + '.bz2')",
        "pandas.read_pickle(path + '.bz2')[0]",
    ),
    "torch": ("torch", "torch.save(what, path)", "torch.load(path, weights_only=False)"),
}

# Stands for the real library, which is large: like that, it pickles with its own Pickler.
TORCH = {
    "__init__.py": "from .serialization import load, save",
    "serialization.py": """
import pickle

def save(obj, f):
    with open(f, "wb") as file:
        pickle.Pickler(file, protocol=2).dump(obj)

def load(f, weights_only=True):
    with open(f, "rb") as file:
        return pickle.Unpickler(file).load()
""",
}

HEAD = "import importlib, os, pickle, sys, warnings; import numpy as np; folder = sys.argv[1]\n"
IMPORT = """
for name in {names}:
    globals()[name] = importlib.import_module(name)
"""
MAKE = """
import sharedmem
a = sharedmem.array(np.arange(3000.0).reshape(3, 1000))
made = {"whole": a, "part": [a[1:, ::2]], "none": (sharedmem.ones(0), 3)}
for number, (save, _) in enumerate(ways):
    what, path = made, os.path.join(folder, str(number))
    exec(save)
"""
READ = """
warnings.simplefilter("ignore")  # files that stay open
a = np.arange(3000.0).reshape(3, 1000)
for number, (_, load) in enumerate(ways):
    path = os.path.join(folder, str(number))
    try:
        got = eval(load)
        assert (got["whole"] == a).all() and (got["part"][0] == a[1:, ::2]).all() and got["none"][1] == 3
        got["whole"][0] = 7
        print("data" if type(got["whole"]) is np.ndarray else type(got["whole"]))
    except Exception as error:
        print(type(error).__name__)
"""


@pytest.fixture(scope="module", params=["the library first", "the library last"])
def read_later(request, tmp_path_factory):
    """{way: what came of it} when one program has written the files and another reads them."""
    folder = tmp_path_factory.mktemp("saved")
    if importlib.util.find_spec("torch") is None:
        (folder / "torch").mkdir()
        for name, text in TORCH.items():
            (folder / "torch" / name).write_text(text)
    ways = {way: rest for way, (module, *rest) in WAYS.items() if is_there(module)}
    names = sorted({WAYS[way][0] for way in ways} - {""})
    head = HEAD + f"ways = {list(ways.values())!r}\nsys.path.insert(0, folder)\n"
    imports = IMPORT.format(names=names)
    first, then = ("import sharedmem\n", imports) if request.param.endswith("first") else (imports, "")
    check_python(head + first + then + MAKE, folder)
    said = check_python(head + imports + READ + "assert 'sharedmem' not in sys.modules", folder)
    return dict(zip(ways, said.splitlines(), strict=True))


def is_there(module):
    return module in ("", "torch") or importlib.util.find_spec(module) is not None


@pytest.mark.parametrize("way", WAYS)
def test_files_hold_data(read_later, way):
    if way not in read_later:
        pytest.skip(f"needs {WAYS[way][0]}")
    assert read_later[way] == "data"


def test_a_cache_of_joblib_holds_data(tmp_path):
    """Or the second program would find a stale handle, and call the function again."""
    pytest.importorskip("joblib")
    (tmp_path / "slowly.py").write_text(
        "import sharedmem\ndef make(n):\n    print('called')\n    return {'a': sharedmem.full(n, 3.0)}\n"
    )
    code = """
    import sys
    sys.path.insert(0, sys.argv[1])
    import joblib, slowly
    print(joblib.Memory(sys.argv[1], verbose=0).cache(slowly.make)(1000)["a"].sum())
    """
    assert check_python(code, tmp_path).split() == ["called", "3000.0"]
    assert check_python(code, tmp_path).split() == ["3000.0"]


# -- which files are files


class Writer:
    """An object of the program that can be written to, and may have a descriptor."""

    def __init__(self):
        self.data = b""

    def write(self, data):
        self.data += data


def in_memory(opened):
    """What a compressed file holds that is written into memory."""

    def write(what):
        buffer = io.BytesIO()
        with opened(buffer, "wb") as file:
            pickle.dump(what, file)
        buffer.seek(0)
        with opened(buffer, "rb") as file:
            return file.read()

    return write


def into_a_zip(what):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("x", "w") as file:
        pickle.dump(what, file)
    with zipfile.ZipFile(buffer) as archive:
        return archive.read("x")


def into_an_object(what):
    writer = Writer()
    pickle.dump(what, file=writer)
    return writer.data


def into_a_temporary_file(what):
    with tempfile.NamedTemporaryFile() as file:
        pickle.dump(obj=what, file=file, protocol=2)
        file.seek(0)
        return file.read()


@pytest.mark.parametrize(
    "write",
    [
        in_memory(gzip.open),
        in_memory(bz2.open),
        in_memory(lzma.open),
        into_a_zip,
        into_an_object,
        into_a_temporary_file,
    ],
)
def test_files_that_are_not_pipes_get_data(write):
    data = write({"a": sharedmem.full(1000, 5.0)})
    gc.collect()
    assert (pickle.loads(data)["a"] == 5).all()


def test_a_file_in_memory_moves_to_the_disk_no_earlier():
    with tempfile.SpooledTemporaryFile(max_size=2**20) as file:
        pickle.dump(sharedmem.ones(100), file)
        assert file._rolled is False
        file.seek(0)
        assert type(pickle.load(file)) is np.ndarray


def test_a_closed_file_is_its_own_error(tmp_path):
    with open(tmp_path / "x", "wb") as file:
        pass
    with pytest.raises(ValueError, match="closed"):
        pickle.dump(sharedmem.ones(3), file)


def through_pipe():
    ours, theirs = os.pipe()
    return open(ours, "rb"), open(theirs, "wb")


def through_socket():
    ours, theirs = socket.socketpair()
    with ours, theirs:  # the files keep them open
        return ours.makefile("rb"), theirs.makefile("wb")


# A file over a socket has no descriptor on Windows, so that it cannot be told from others.
@pytest.mark.parametrize(
    "through", [through_pipe, pytest.param(through_socket, marks=pytest.mark.needs_posix)]
)
def test_messages_to_another_process_keep_handles(through):
    a = sharedmem.ones(100_000)
    source, sink = through()
    with source, sink:
        pickle.dump([a], sink)
        sink.flush()
        [b] = pickle.load(source)
        assert np.shares_memory(a, b)


def test_bytes_stay_handles():
    a = sharedmem.ones(100_000)
    file = io.BytesIO()
    pickle.dump(a, file)
    for data in (file.getvalue(), pickle.dumps(a)):
        assert len(data) < 300
        assert np.shares_memory(pickle.loads(data), a)


# -- how the functions are replaced


def test_pickle_by_value_ends_with_the_call(tmp_path):
    a = sharedmem.ones(1000)
    with open(tmp_path / "x", "wb") as file:
        with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
            pickle.dump([a, threading.Lock()], file)
        assert np.shares_memory(pickle.loads(pickle.dumps(a)), a)
        pickle.dump(a, file)
    assert np.shares_memory(pickle.loads(pickle.dumps(a)), a)


def test_the_functions_are_still_found_by_name_and_by_signature():
    assert pickle.loads(pickle.dumps([pickle.dump, np.save])) == [pickle.dump, np.save]
    assert list(inspect.signature(pickle.dump).parameters)[:3] == ["obj", "file", "protocol"]
    for name in ("joblib", "cloudpickle", "dill"):
        with contextlib.suppress(ImportError):
            dump = importlib.import_module(name).dump
            assert pickle.loads(pickle.dumps(dump)) is dump


def test_buffers_out_of_band_are_those_of_the_array(tmp_path):
    a = sharedmem.ones(1000)
    buffers = []
    with open(tmp_path / "x", "w+b") as file:
        pickle.dump(a, file, protocol=5, buffer_callback=buffers.append)
        file.seek(0)
        b = pickle.load(file, buffers=buffers)
    assert np.shares_memory(a, b)


def test_a_module_without_the_function_is_left_alone(tmp_path):
    for folder, text in (("torch", ""), ("dill", "")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text(text)
    (tmp_path / "torch" / "serialization.py").write_text("x = 1")
    (tmp_path / "dill" / "_dill.py").write_text("dump = None")
    code = """
    import sys
    sys.path.insert(0, sys.argv[1])
    import sharedmem
    import dill._dill, torch.serialization
    print(torch.serialization.x, dill._dill.dump)
    """
    assert check_python(code, tmp_path) == "1 None"


def test_importing_the_library_imports_none_of_the_others():
    code = """
    import sys, sharedmem
    others = "cloudpickle", "dill", "joblib", "pandas", "shelve", "torch"
    print([name for name in others if name in sys.modules])
    """
    assert check_python(code) == "[]"


# -- other things of the library


def test_ctypes_objects_and_locks_in_files(tmp_path):
    """The data is saved; a lock is saved as a free one."""
    counter = sharedmem.Value("i", 7)
    with counter.get_lock(), open(tmp_path / "x", "w+b") as file:
        pickle.dump((counter, sharedmem.Array("d", [1, 2])), file)
        file.seek(0)
        other, array = pickle.load(file)
        assert other.get_lock().acquire(timeout=0)
        other.get_lock().release()
    other.value += 1
    assert (other.value, counter.value, array[:]) == (8, 7, [1, 2])


def test_saved_by_a_pickler_of_ones_own(tmp_path):
    """Nothing can be done about it, but the error says what it looks like and what helps."""
    with open(tmp_path / "x", "w+b") as file:
        pickle.Pickler(file).dump(sharedmem.ones(1000))
        file.seek(0)
        with pytest.raises(StaleHandleError, match=r"looks saved.*pickle\.dump.*pickle_by_value"):
            pickle.load(file)
