"""python -m sharedmem: the demo from end to end, and what it says about bad input."""

import os
import signal
import sys

import commands
import pytest
import support

import sharedmem


def rows(out):
    """{name of the way: cells} of the demo's table."""
    names = ("pickled copies", "multiprocessing.Array", "sharedmem")
    return {
        name: line.lstrip()[len(name) :].split()
        for line in commands.without_lines(out).splitlines()
        for name in names
        if line.lstrip().startswith(name)
    }


@pytest.mark.needs_executor
def test_demo(start_method):
    status, out, err = commands.run("demo", "--size", "8MiB", "--workers", 3, "--start-method", start_method)
    assert status == 0, err
    table = rows(out)
    assert list(table) == ["pickled copies", "multiprocessing.Array", "sharedmem"]
    assert all(cells[-1] == "equal" for cells in table.values())
    # To the workers and back, and to the process that checks.
    assert table["pickled copies"][:2] == ["24.0", "MiB"]
    assert table["sharedmem"][1] in ("B", "KiB")
    assert f"workers: 3 ({start_method}), parts: 12" in out
    assert err.splitlines() == [f"{name}: working" for name in table]


@pytest.mark.needs_executor
def test_one_worker():
    status, out, err = commands.run("demo", "--size", "1MiB", "--workers", 1)
    assert status == 0, err
    assert "workers: 1 (" in out


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
    "a file": ["images.npy"],
}


@pytest.mark.parametrize("args", BAD.values(), ids=BAD)
def test_bad_input_is_one_line(args, capsys):
    from sharedmem.__main__ import main

    try:
        status = main(["demo", *args])
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


@pytest.mark.needs_executor
def test_demo_without_rich():
    status, out, err = commands.without_rich("demo", "--size", "1MiB", "--workers", "1")
    assert status == 0, err
    assert [cells[-1] for cells in rows(out).values()] == ["equal"] * 3


def test_interrupt(start_method):
    with commands.start("demo", "--size", "64MiB", "--start-method", start_method) as process:
        for line in process.stderr:
            if line == "multiprocessing.Array: working\n":
                break
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=support.TIMEOUT)
    # The last is Python 3.14's, of a message that was being pickled.
    usual = (": working", "re-sized")
    said = [line for line in err.splitlines() if not line.endswith(usual) and "_io.BytesIO" not in line]
    assert said == ["interrupted"]
    assert (process.returncode, out) == (130, "")


@pytest.mark.skipif(sys.version_info < (3, 11, 5), reason="its executor waits for ever: python/cpython#94777")
def test_killed_worker():
    code = """
    import os, signal, sys
    from sharedmem.__main__ import main
    from sharedmem._cli.demo import work
    parent, usual = os.getpid(), work.brighten
    def killed(images):
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        usual(images)
    work.brighten = killed
    sys.exit(main(sys.argv[1:]))
    """
    status, _, err = support.run_python(code, "demo", "--size", "8MiB", "--start-method", "fork")
    # Python 3.13 may tell of a message that was being sent, too.
    noise = "_io.BytesIO", "re-sized"
    said = [line for line in err.decode().splitlines() if not any(word in line for word in noise)]
    assert status == 1
    assert said[0] == "pickled copies: working"
    assert "a worker process was killed" in said[-1]
    assert not any("Traceback" in line for line in said)
