"""What ``python -m sharedmem`` shows of names: info, unlink, top."""

import io
import json
import os
import re
import select
import signal
import subprocess
import sys
import time

import commands
import numpy as np
import pytest
import support
from naming import own_names, program, said  # noqa: F401

import sharedmem
import sharedmem._cli.top


def names_told():
    status, out, err = commands.run("info", "--json", related=True)
    assert (status, err) == (0, ""), err
    arenas = json.loads(out)["arenas"]
    return [name for arena in arenas for name in arena["names"] or ()]


def test_info_lists_names_of_each_state():
    a = sharedmem.create("of info", (2, 3), "i2")
    with pytest.raises(ZeroDivisionError):
        sharedmem.get_or_create("failed", lambda: 1 / 0)
    code = "sharedmem.get_or_create('built', lambda: print('builds', flush=True) or sys.stdin.read())"
    with program(code) as builder:
        said(builder)
        told = {name["name"]: name for name in names_told()}
        assert set(told) >= {"of info", "failed", "built"}
        ready = told["of info"]
        assert (ready["state"], ready["shape"], ready["dtype"], ready["nbytes"]) == (
            "ready",
            [2, 3],
            "int16",
            12,
        )
        assert ready["processes"] == [os.getpid()]
        assert told["failed"]["state"] == "failed"
        assert (told["built"]["state"], told["built"]["pid"]) == ("building", builder.pid)
        status, out, err = commands.run("info", related=True)
        assert (status, err) == (0, "")
        assert "2x3" in out
        assert "of info" in out
        status, _, err = commands.run("unlink", "built", related=True)
        assert status == 1
        assert f"being built by process {builder.pid} since" in err
    sharedmem.unlink("failed")
    del a


def test_a_name_whose_array_was_freed_is_not_listed():
    a = sharedmem.create("gone", 3)
    del a
    assert "gone" not in [name["name"] for name in names_told()]


def test_info_takes_no_part_in_the_arena_of_names():
    a = sharedmem.create("looked at", 3)
    (info,) = [name for name in names_told() if name["name"] == "looked at"]
    assert info["processes"] == [os.getpid()]
    assert len(next(i for i in sharedmem.names() if i.name == "looked at").processes) == 1
    del a


def test_unlink_takes_names_away():
    a, b = sharedmem.create("one", 3), sharedmem.create("two", 3)
    assert commands.run("unlink", "one", "two", related=True)[0] == 0
    assert [info.name for info in sharedmem.names()] == []
    a[0] = 1
    status, _, err = commands.run("unlink", "one", related=True)
    assert status == 1
    assert "there is no array of that name: 'one'" in err
    assert commands.run("unlink", "--missing-ok", "one", related=True)[0] == 0
    assert commands.run("unlink", "", related=True)[0] == 1
    assert commands.run("unlink", related=True)[0] == 2
    del b


def test_top_is_printed_once_where_there_is_no_terminal():
    a = sharedmem.create("of top", (4, 5))
    status, out, err = commands.run("top", related=True)
    assert (status, err) == (0, "")
    assert "4x5" in out
    assert str(os.getpid()) in out
    assert "\x1b" not in out
    del a


@pytest.mark.parametrize("interval", ["0", "x", "nan"])
def test_top_refuses_an_interval(interval):
    status, _, err = commands.run("top", "--interval", interval)
    assert status == 2
    assert "number of seconds" in err


@pytest.fixture
def top():
    """`top` in a terminal of 80 columns; a function that gives what it shows within some time."""
    pytest.importorskip("rich")
    pty = pytest.importorskip("pty")
    import termios

    try:
        ours, theirs = pty.openpty()
    except OSError as error:
        pytest.skip(f"there are no terminals here: {error}")
    termios.tcsetwinsize(theirs, (40, 80)) if hasattr(termios, "tcsetwinsize") else set_size(theirs)
    process = subprocess.Popen(
        [sys.executable, "-m", "sharedmem", "top", "--interval", "0.2"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=support.environment(TERM="xterm", COLUMNS="80", LINES="40"),
        start_new_session=True,
    )
    os.close(theirs)
    yield process, ours
    process.kill()
    process.wait()
    os.close(ours)


def set_size(terminal):
    import fcntl
    import struct
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))


def shown(terminal, text):
    """Reads what is shown until `text` is."""
    seen = ""
    end = time.monotonic() + 60
    while text not in seen:
        assert time.monotonic() < end, seen
        if select.select([terminal], [], [], 1)[0]:
            seen += os.read(terminal, 65536).decode("utf-8", "replace")
    return seen


@pytest.mark.parametrize("way", ["q", "interrupt"])
def test_top_shows_what_changes_until_it_is_ended(top, way):
    process, terminal = top
    shown(terminal, "q quits")
    a = sharedmem.create("comes later", 3)
    shown(terminal, "comes later")
    if way == "q":
        os.write(terminal, b"xq")
    else:
        process.send_signal(signal.SIGINT)
    support.wait_until(lambda: select.select([terminal], [], [], 0)[0] == [] or drain(terminal))
    assert process.wait(60) == 0
    assert np.all(a == 0)


def drain(terminal):
    try:
        os.read(terminal, 65536)
    except OSError:
        return True
    return False


def test_top_is_printed_once_on_a_terminal_that_cannot_be_drawn_on(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    a = sharedmem.create("seen", 3)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stdout", Terminal())
    with program("a = sharedmem.attach('seen'); print('there', flush=True); sys.stdin.read()") as other:
        said(other)  # what one process alone uses is not shown to itself
        assert sharedmem._cli.top.run(1.0) == 0
    assert "seen" in sys.stdout.getvalue()
    del a


def test_a_long_name_leaves_the_other_columns_of_top_their_room(top):
    """It is shortened, as `info` does, so that the state, the dtype and the bytes of each name are whole."""
    _, terminal = top
    a = sharedmem.create("a long name/" + "x" * 150, (3, 3))
    seen = shown(terminal, "xx...")
    (line,) = {line for line in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen).splitlines() if "xx..." in line}
    assert line.split()[0] == "ready"
    assert {"float64", "3x3", "72", str(os.getpid())} <= set(line.split())
    assert len(line.rstrip()) <= 80
    del a
