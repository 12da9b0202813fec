"""python -m sharedmem: the demo, what it says about bad input, and info."""

import ctypes
import json
import mmap
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import support

import sharedmem
from sharedmem import console, segments

pytest.importorskip("rich", reason="the demo needs rich")

from sharedmem.demo import memory, source, work

IPC_CREAT, IPC_RMID, IPC_PRIVATE = 0o1000, 0, 0


def command(*args, related=False):
    """A `python -m sharedmem` that has been started; its process group is its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "sharedmem", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=support.environment(related=related, COLUMNS=80),
        start_new_session=True,
    )


def run(*args, **options):
    """(exit status, stdout, stderr) of `python -m sharedmem`."""
    with command(*args, **options) as process:
        try:
            out, err = process.communicate(timeout=support.TIMEOUT)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, out, err


def without_rich(*args):
    """The same in an interpreter that cannot import rich."""
    code = """
        import sys
        sys.modules["rich"] = None
        from sharedmem.__main__ import main
        sys.exit(main(sys.argv[1:]))
    """
    status, out, err = support.run_python(code, *args)
    return status, out.decode(), err.decode()


def rows(out):
    """{name of the way: cells} of the demo's table."""
    names = ("NumPy, one process", "pickled copies", "multiprocessing.Array", "sharedmem")
    return {
        name: line[len(name) :].split()
        for line in out.splitlines()
        for name in names
        if line.startswith(name)
    }


# the demo


def test_demo(start_method):
    status, out, err = run("demo", "--size", "8MiB", "--workers", 3, "--start-method", start_method)
    assert status == 0, err
    table = rows(out)
    assert list(table) == ["NumPy, one process", "pickled copies", "multiprocessing.Array", "sharedmem"]
    assert all(table[name][-1] == "equal" for name in list(table)[1:])
    # Twice to and fro, and once to the process that checks.
    assert table["pickled copies"][:2] == ["24.0", "MiB"]
    assert table["sharedmem"][1] in ("B", "KiB")
    assert f"3 workers ({start_method}), 12 parts" in out
    assert all(line.endswith((": filling", ": working", ": checking")) for line in err.splitlines())
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    "array",
    [
        np.linspace(-5, 5, 3000, dtype="f4").reshape(100, 30),
        np.asfortranarray(np.arange(600.0).reshape(20, 30)),
        np.arange(-500, 500, dtype=">i4"),
        np.array([0, 1, 2**63, 2**64 - 1], "u8"),
        np.array([1, -4, np.nan, np.inf], np.longdouble),
        np.array(7.0),
    ],
    ids=lambda a: f"{a.dtype.str}-{a.ndim}d",
)
def test_demo_of_a_file(array, tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, array)
    before = path.read_bytes()
    status, out, err = run("demo", path)
    assert status == 0, err
    assert [cells[-1] for cells in rows(out).values()].count("equal") == 3
    assert path.read_bytes() == before


def test_one_worker(tmp_path):
    status, out, err = run("demo", "--size", "1MiB", "--workers", 1)
    assert status == 0, err
    assert "1 worker (" in out


BAD = {
    "size zero": ["--size", "0"],
    "no size": ["--size", "big"],
    "negative size": ["--size", "-5"],
    "size below an image": ["--size", "1000"],
    "size beyond memory": ["--size", "1000TiB"],
    "size beyond numbers": ["--size", "1" + 40 * "0"],
    "no workers": ["--workers", "0"],
    "workers by name": ["--workers", "two"],
    "more workers than images": ["--workers", "9", "--size", "1MiB"],
    "start method": ["--start-method", "thread"],
    "size of a file": ["{}/good.npy", "--size", "1MiB"],
    "two files": ["{}/good.npy", "{}/good.npy"],
    "more workers than elements": ["{}/good.npy", "--workers", "4"],
    "no file": ["{}/none.npy"],
    "folder": ["{}"],
    "text": ["{}/text.npy"],
    "empty file": ["{}/empty.npy"],
    "cut file": ["{}/cut.npy"],
    "cut header": ["{}/header.npy"],
    "archive": ["{}/archive.npz"],
    "no elements": ["{}/nothing.npy"],
    "objects": ["{}/objects.npy"],
    "strings": ["{}/strings.npy"],
    "complex": ["{}/complex.npy"],
}


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    np.save(folder / "good.npy", np.ones(3))
    whole = (folder / "good.npy").read_bytes()
    (folder / "text.npy").write_text("hello")
    (folder / "empty.npy").write_bytes(b"")
    (folder / "cut.npy").write_bytes(whole[:-1])
    (folder / "header.npy").write_bytes(whole[:20] + b"\xff" * 30 + whole[50:])
    np.savez(folder / "archive.npz", a=np.ones(3))
    np.save(folder / "nothing.npy", np.ones((0, 3)))
    np.save(folder / "objects.npy", np.array([{}]), allow_pickle=True)
    np.save(folder / "strings.npy", np.array(["a"]))
    np.save(folder / "complex.npy", np.ones(3, complex))
    return folder


@pytest.mark.parametrize("args", BAD.values(), ids=BAD)
def test_bad_input_is_one_line(args, bad_files, capsys):
    from sharedmem.__main__ import main

    try:
        status = main(["demo", *(arg.replace("{}", str(bad_files)) for arg in args)])
    except SystemExit as exit:
        status = exit.code
    out, err = capsys.readouterr()
    assert status == 2
    assert out == ""
    assert err.count("\n") == 1
    assert "error: " in err


@pytest.mark.parametrize("args", [[], ["nothing"], ["info", "--xml"]], ids=" ".join)
def test_bad_command(args):
    status, out, err = run(*args)
    assert (status, out, err.count("\n")) == (2, "", 1)


def test_help_and_version():
    status, out, _ = run("demo", "--help")
    assert status == 0
    assert "--start-method" in out
    assert run("--version") == (0, f"sharedmem {sharedmem.__version__}\n", "")


def test_demo_without_rich():
    status, out, err = without_rich("demo")
    assert (status, out) == (2, "")
    assert "numpy-sharedmem[cli]" in err
    assert err.count("\n") == 1


def test_interrupt(start_method):
    with command("demo", "--size", "64MiB", "--start-method", start_method) as process:
        for line in process.stderr:
            if line == "pickled copies: working\n":
                break
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=support.TIMEOUT)
    progress = (": filling", ": working", ": checking")
    assert [line for line in err.splitlines() if not line.endswith(progress)] == ["interrupted"]
    assert (process.returncode, out) == (130, "")


def test_killed_worker():
    with command("demo", "--size", "64MiB", "--start-method", "fork") as process:
        for line in process.stderr:
            if line == "pickled copies: working\n":
                break
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            os.kill(int(file.read().split()[0]), signal.SIGKILL)
        _, err = process.communicate(timeout=support.TIMEOUT)
    assert process.returncode == 1
    assert "killed by signal 9" in err.splitlines()[-1]
    assert "Traceback" not in err


# its parts


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", ">i2", "u4", "i8", "u8", "f2", "f4", ">f8", "g"])
def test_brighten_is_the_same_in_parts(dtype):
    values = 1000 * np.random.default_rng(1).standard_normal(1001)
    if np.dtype(dtype).kind != "f":
        values = values.astype("i8")
    values = values.astype(dtype)
    whole, parts = values.copy(), values.copy()
    work.brighten(whole)
    for part in np.split(parts, [1, 8, 9, 100, 731]):
        work.brighten(part)
    assert whole.tobytes() == parts.tobytes()
    assert not np.array_equal(whole, values)


def test_brighten_values():
    a = np.array([0, 1, 64, 255], "u1")
    work.brighten(a)
    assert a.tolist() == [0, 16, 128, 255]
    a = np.array([-(2**63), -1, 0, 2**63 - 1])
    work.brighten(a)
    assert a[2] == 0
    assert a[0] < -(2**62)
    assert a[3] > 2**62
    a = np.array([-4.0, 9.0])
    work.brighten(a)
    assert a.tolist() == [-2, 3]


def test_check_finds_one_wrong_element():
    stack = source.Stack(2**20)
    a = np.empty(2 * stack.grain, stack.dtype)
    stack.read(stack.grain, a)
    work.brighten(a)
    assert work.Check(stack)(stack.grain, a) is None
    a[70000] ^= 1
    assert f"element {stack.grain + 70000} is " in work.Check(stack)(stack.grain, a)


def test_wrong_result_shows_in_the_exit_status(capsys):
    from sharedmem import demo
    from sharedmem.demo.contest import Result

    assert demo._conclude([Result("a", wrong=""), Result("b")], []) == 0
    assert demo._conclude([Result("a", wrong=""), Result("b", wrong="element 3 is 1")], []) == 1
    assert "b: WRONG: element 3 is 1" in capsys.readouterr().out


def test_resident_counts_shared_pages_once():
    nbytes = 2**24
    a = sharedmem.ones(nbytes, np.uint8)
    with support.Remote("fork") as child:
        before = memory.resident([os.getpid(), child.pid])
        child.call(np.sum, a)
        after = memory.resident([os.getpid(), child.pid])
    assert abs(after - before) < nbytes // 2


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("1", 1), ("2k", 2048), ("1.5 KiB", 1536), ("1kB", 1000), ("64MiB", 2**26), ("3gb", 3 * 10**9)],
)
def test_parse_bytes(text, nbytes):
    assert console.parse_bytes(text) == nbytes


@pytest.mark.parametrize("text", ["", "B", "1 2", "1e3", "-1", "0", "nan", "1PiB", "KiB", "\u0661"])
def test_parse_bytes_refuses(text):
    with pytest.raises(ValueError, match="is not a size"):
        console.parse_bytes(text)


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (1000 * 1024, "0.98 MiB"), (2**40, "1.00 TiB")],
)
def test_format_bytes(nbytes, text):
    assert console.format_bytes(nbytes) == text


# info


def info(**options):
    status, out, err = run("info", "--json", **options)
    assert (status, err) == (0, "")
    return json.loads(out)


def test_info_of_a_stranger():
    a = sharedmem.ones(2**21, np.uint8)
    found = info()
    me = {process["pid"]: process for process in found["processes"]}[os.getpid()]
    assert me["resident_bytes"] >= a.nbytes
    ours = [segment for segment in found["segments"] if os.getpid() in segment["processes"]]
    assert {segment["kind"] for segment in ours} >= {"arena"}
    assert {segment["id"] for segment in ours} == set(me["segments"])
    assert all(segment["removed"] and not segment["orphan"] for segment in ours)
    assert found["arena"] is None
    assert found["participants"] == []
    assert found["version"] == sharedmem.__version__


def test_info_of_a_child():
    a = sharedmem.ones(2**21, np.uint8)
    found = info(related=True)
    assert found["arena"]["arena"] == sharedmem.stats()["arena"]
    mine = [p for p in found["participants"] if p["pid"] == os.getpid()]
    assert [p["state"] for p in mine] == ["active"]
    assert mine[0]["bytes"] >= a.nbytes
    assert sum(p["self"] for p in found["participants"]) == 1


def test_info_in_words():
    a = sharedmem.ones(2**21, np.uint8)
    status, out, err = run("info", related=True)
    assert (status, err) == (0, "")
    assert "Shared-memory segments of " in out
    assert "Processes that use sharedmem" in out
    assert f"Participants of the arena of this process, {sharedmem.stats()['arena']}" in out
    assert f"{os.getpid()}" in out
    assert max(map(len, out.splitlines())) <= 80
    del a


def test_info_without_rich():
    a = sharedmem.ones(2**21, np.uint8)
    status, out, err = without_rich("info")
    assert (status, err) == (0, "")
    assert "Shared-memory segments of " in out
    assert any(line.split()[:1] == [str(os.getpid())] for line in out.splitlines())
    del a


def test_info_to_a_reader_that_goes_away():
    with command("info") as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


@pytest.fixture
def segment():
    """A function that makes a System V segment that nobody has attached; its id."""
    libc = ctypes.CDLL(None, use_errno=True)
    made = []

    def make(key):
        made.append(libc.shmget(key, ctypes.c_size_t(4096), IPC_CREAT | 0o600))
        assert made[-1] >= 0, os.strerror(ctypes.get_errno())
        return made[-1]

    yield make
    for shmid in made:
        libc.shmctl(shmid, IPC_RMID, None)


def test_survey_tells_ours_from_others(segment):
    orphan, other = segment(0x534D0000 | os.getpid() & 0xFFFF), segment(IPC_PRIVATE)
    found = {one.id: one for one in segments.survey(os.geteuid())[0]}
    assert (found[orphan].kind, found[orphan].orphan, found[orphan].removed) == ("arena", True, False)
    assert (found[other].kind, found[other].orphan, found[other].removed) == ("other", False, False)
    assert found[other].creator == os.getpid()
    _, out, _ = run("info")
    assert f"by: ipcrm -m {other}" in out


def test_survey_of_a_memfd():
    fd = os.memfd_create("sharedmem:0123abcd")
    try:
        os.ftruncate(fd, 2**20)
        os.pwrite(fd, bytes(2**16), 0)
        with mmap.mmap(fd, 2**20):
            found, processes = segments.survey(os.geteuid())
            inode = os.fstat(fd).st_ino
            one = {one.id: one for one in found}[inode]
            assert (one.backing, one.kind, one.bytes, one.resident_bytes) == ("memfd", "arena", 2**20, 2**16)
            assert one.processes == [os.getpid()]
            assert inode in {p.pid: p for p in processes}[os.getpid()].segments
    finally:
        os.close(fd)


def test_survey_leaves_out_a_process():
    sharedmem.empty(1)
    _, processes = segments.survey(os.geteuid(), but=os.getpid())
    assert os.getpid() not in {process.pid for process in processes}
