"""What errors say about small mistakes: a wrong argument, a wrong path, a message that was loaded before."""

import os

import numpy as np
import pytest
from naming import own_names  # noqa: F401
from support import check_python, run_python

import sharedmem


def test_a_message_that_was_loaded_before():
    message = sharedmem.dumps(np.ones(1000))
    sharedmem.loads(message)
    with pytest.raises(sharedmem.StaleHandleError, match=r"loaded before.*keep sharedmem\.share\(obj\)"):
        sharedmem.loads(message)


def test_a_message_whose_sender_has_ended(tmp_path):
    code = "import sharedmem, numpy as np; print(sharedmem.dumps(np.ones(1000)).hex())"
    message = bytes.fromhex(check_python(code, related=False, SHAREDMEM_LINGER="0"))
    with pytest.raises(sharedmem.StaleHandleError, match=r"has gone\. .*SHAREDMEM_LINGER"):
        sharedmem.loads(message)


def test_a_message_that_was_cut_short():
    shared = sharedmem.share(np.ones(1000))
    message = sharedmem.dumps(shared)
    with pytest.raises(EOFError):
        sharedmem.loads(b"")
    with pytest.raises(Exception, match="truncated"):
        sharedmem.loads(message[:-1])
    assert sharedmem.loads(message)[0] == 1


@pytest.mark.parametrize("populate", ["x", "no", 1, 0, ()])
def test_populate_is_a_truth_value(populate):
    for make in (sharedmem.empty, sharedmem.zeros, sharedmem.ones):
        with pytest.raises(TypeError, match="populate must be True, False or None"):
            make(3, populate=populate)
    with pytest.raises(TypeError, match="populate"):
        sharedmem.full(3, 1, populate=populate)


@pytest.mark.parametrize("populate", [True, False, None, np.True_, np.False_])
def test_what_populate_may_be(populate):
    assert sharedmem.zeros(3, populate=populate).sum() == 0


def test_the_arguments_of_allocator():
    with pytest.raises(TypeError, match=r"^allocator\(\) takes no positional arguments \(1 given\)"):
        sharedmem.allocator(True)
    with pytest.raises(TypeError, match=r"^allocator\(\) got an unexpected keyword argument 'zeroes'"):
        sharedmem.allocator(zeroes=True)
    with sharedmem.allocator(zeros=True):
        assert sharedmem.is_shared(np.zeros(3))
    with sharedmem.allocator(zeros=False):
        assert not sharedmem.is_shared(np.zeros(3))


def test_attach_says_how_long_it_has_waited(own_names):  # noqa: F811
    with pytest.raises(FileNotFoundError, match=r"within 0\.01 s") as waited:
        sharedmem.attach("nobody makes this", timeout=0.01)
    with pytest.raises(FileNotFoundError) as at_once:
        sharedmem.attach("nobody makes this")
    assert "within" not in str(at_once.value)
    assert waited.value.filename == at_once.value.filename == "nobody makes this"


@pytest.mark.parametrize("as_path", [str, os.fsencode, lambda path: path], ids=["str", "bytes", "Path"])
def test_a_missing_file_is_the_error_that_open_raises(tmp_path, as_path):
    missing = as_path(tmp_path / "missing")
    with pytest.raises(FileNotFoundError) as expected:
        open(missing).close()
    for opening in (sharedmem.open_memmap, sharedmem.memmap, lambda path: sharedmem.load(path, "r")):
        with pytest.raises(FileNotFoundError) as caught:
            opening(missing)
        assert caught.value.filename == os.fspath(missing)
        assert str(caught.value) == str(expected.value).replace(repr(missing), repr(os.fspath(missing)))
    with pytest.raises(FileNotFoundError) as caught:
        sharedmem.open_memmap(tmp_path / "no folder" / "a.npy", "w+", "f4", 3)
    assert caught.value.filename == os.fspath(tmp_path / "no folder" / "a.npy")


def test_what_is_wrong_with_a_file_is_said_with_its_name(tmp_path):
    (tmp_path / "bad.npy").write_bytes(b"hello")
    for opening in (sharedmem.load, sharedmem.open_memmap):
        with pytest.raises(ValueError, match=r"bad\.npy': EOF: reading the header"):
            opening(tmp_path / "bad.npy")
    np.save(tmp_path / "short.npy", np.ones(3))
    os.truncate(tmp_path / "short.npy", os.stat(tmp_path / "short.npy").st_size - 1)
    for opening in (sharedmem.load, sharedmem.open_memmap):
        with pytest.raises(
            ValueError, match=r"short\.npy': EOF: reading array data, expected 24 bytes got 23"
        ):
            opening(tmp_path / "short.npy")


def test_the_mode_of_load_may_be_its_second_argument(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(3))
    sharedmem.load(tmp_path / "a.npy", "r+")[0] = 7
    assert np.load(tmp_path / "a.npy").tolist() == [7, 1, 2]
    with pytest.raises(ValueError, match="mode 'c' is not supported"):
        sharedmem.load(tmp_path / "a.npy", "c")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1MB", 10**6),
        ("1M", 1 << 20),
        ("1MiB", 1 << 20),
        ("2kb", 2000),
        ("1.5 k", 1536),
        ("1e6", 10**6),
        ("7B", 7),
        ("+3Ki", 3072),
        ("3MIB", 3 << 20),
    ],
)
def test_transport_takes_the_sizes_of_the_other_variables(text, expected):
    code = (
        "import os, sharedmem._transfers.settings as s; print(s._read(os.environ['SHAREDMEM_TRANSPORT'])[0])"
    )
    assert check_python(code, SHAREDMEM_TRANSPORT=f"min_bytes={text}") == str(expected)
    code = "import sharedmem; sharedmem.new_arena(); print(sharedmem.memory_limit()['cache'])"
    assert check_python(code, SHAREDMEM_CACHE_LIMIT=text) == str(expected)


@pytest.mark.parametrize("text", ["7iB", "1 apples", "-1", "", "0x10", "1,5", "1e30", "1 2"])
def test_invalid_sizes_of_transport(text):
    status, _, err = run_python("import sharedmem", SHAREDMEM_TRANSPORT=f"max_in_flight={text}")
    assert status == 1
    assert b"ValueError: SHAREDMEM_TRANSPORT: " in err


def test_a_queue_that_others_find_by_a_name(own_names):  # noqa: F811
    """As the page on names describes it, with a program of another tree."""
    import pickle

    queue = sharedmem.Queue()
    shown = sharedmem.get_or_create("jobs", lambda: np.frombuffer(pickle.dumps(queue), np.uint8))
    code = (
        "import pickle, sharedmem; pickle.loads(sharedmem.attach('jobs', timeout=60)).put('from a stranger')"
    )
    check_python(code, related=False)
    assert queue.get(timeout=60) == "from a stranger"
    assert shown.nbytes > 0


def test_a_failed_name_is_replaced_when_it_is_used_again(own_names):  # noqa: F811
    def fails():
        raise OSError("no file")

    with pytest.raises(OSError, match="no file"):
        sharedmem.get_or_create("table", fails)
    assert [(info.state, info.processes) for info in sharedmem.names()] == [("failed", ())]
    with pytest.raises(FileNotFoundError):
        sharedmem.attach("table")
    made = sharedmem.create("table", 3)
    assert [info.state for info in sharedmem.names()] == ["ready"]
    del made
