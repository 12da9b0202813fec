"""python -m sharedmem: the demo from end to end, and what it says about bad input."""

import os
import signal

import commands
import numpy as np
import pytest
import support

import sharedmem

pytest.importorskip("rich", reason="the demo needs rich")


def rows(out):
    """{name of the way: cells} of the demo's table."""
    names = ("NumPy, one process", "pickled copies", "multiprocessing.Array", "sharedmem")
    return {
        name: line[len(name) :].split()
        for line in out.splitlines()
        for name in names
        if line.startswith(name)
    }


def test_demo(start_method):
    status, out, err = commands.run("demo", "--size", "8MiB", "--workers", 3, "--start-method", start_method)
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
    status, out, err = commands.run("demo", path)
    assert status == 0, err
    assert [cells[-1] for cells in rows(out).values()].count("equal") == 3
    assert path.read_bytes() == before


def test_one_worker(tmp_path):
    status, out, err = commands.run("demo", "--size", "1MiB", "--workers", 1)
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
    status, out, err = commands.run(*args)
    assert (status, out, err.count("\n")) == (2, "", 1)


def test_help_and_version():
    status, out, _ = commands.run("demo", "--help")
    assert status == 0
    assert "--start-method" in out
    assert commands.run("--version") == (0, f"sharedmem {sharedmem.__version__}\n", "")


def test_demo_without_rich():
    status, out, err = commands.without_rich("demo")
    assert (status, out) == (2, "")
    assert "numpy-sharedmem[cli]" in err
    assert err.count("\n") == 1


def test_interrupt(start_method):
    with commands.start("demo", "--size", "64MiB", "--start-method", start_method) as process:
        for line in process.stderr:
            if line == "pickled copies: working\n":
                break
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=support.TIMEOUT)
    # The last is Python 3.14's, of a message that was being pickled.
    usual = (": filling", ": working", ": checking", "re-sized")
    said = [line for line in err.splitlines() if not line.endswith(usual) and "_io.BytesIO" not in line]
    assert said == ["interrupted"]
    assert (process.returncode, out) == (130, "")


def test_killed_worker():
    code = """
    import os, signal, sys
    from sharedmem.__main__ import main
    from sharedmem._cli.demo import work
    parent, usual = os.getpid(), work.Brighten.__call__
    def killed(self, first, part):
        if first > 0 and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        usual(self, first, part)
    work.Brighten.__call__ = killed
    sys.exit(main(sys.argv[1:]))
    """
    status, _, err = support.run_python(code, "demo", "--size", "8MiB", "--start-method", "fork")
    # Python 3.13 may tell of a message that was being sent, too.
    noise = "_io.BytesIO", "re-sized"
    said = [line for line in err.decode().splitlines() if not any(word in line for word in noise)]
    assert status == 1
    assert "pickled copies: filling" in said
    assert "killed by signal 9" in said[-1]
    assert not any("Traceback" in line for line in said)
