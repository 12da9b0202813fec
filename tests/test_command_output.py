"""`python -m sharedmem` where its output cannot go anywhere, and `top` when it is ended from outside."""

import os
import select
import signal
import time

import pytest
import support
from naming import own_names  # noqa: F401
from test_name_commands import shown, top  # noqa: F401

import sharedmem


@pytest.mark.parametrize(
    ("command", "called"),
    [
        ("info", " info"),
        ("info --json", " info"),
        ("top", " top"),
        *((command, "") for command in ("--help", "--version", "demo --help")),
    ],
)
def test_a_full_disk_is_one_line(command, called):
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    status, _, err = support.run_python("", shell=f'"$1" -m sharedmem {command} >/dev/full; exit $?')
    assert status == 1
    assert err.decode().startswith(f"python -m sharedmem{called}: error: [Errno 28]")
    assert err.count(b"\n") == 1


@pytest.mark.parametrize("command", ["--help", "info", "demo --size 1MiB --workers 1"])
def test_a_reader_that_has_gone_is_no_line(command):
    """The pipe is closed before anything is written to it. The demo tells on standard error what it does."""
    shell = f'{{ sleep 0.5; "$1" -m sharedmem {command}; echo "status $?" >&2; }} | true; exit 0'
    status, _, err = support.run_python("", shell=shell)
    said = [line for line in err.decode().splitlines() if not line.endswith(": working")]
    assert (status, said) == (0, ["status 1"])


@pytest.mark.parametrize("command", ["info", "info --json", "top", "top <&-", "unlink --missing-ok none"])
def test_without_an_output(command):
    status, out, err = support.run_python("", shell=f'exec "$1" -m sharedmem {command} >&-', related=True)
    assert (status, out, err) == (0, b"", b"")


def test_top_gives_the_terminal_back_when_it_is_terminated(top):  # noqa: F811
    import termios

    process, terminal = top
    a = sharedmem.create("seen before the end", 3)
    before = termios.tcgetattr(terminal)
    shown(terminal, "seen before the end")
    assert termios.tcgetattr(terminal)[3] != before[3] or not before[3] & termios.ICANON
    process.send_signal(signal.SIGTERM)
    seen, end = b"", time.monotonic() + 60
    while b"\x1b[?1049l" not in seen:  # back from the alternate screen
        assert time.monotonic() < end, seen
        if select.select([terminal], [], [], 1)[0]:
            seen += os.read(terminal, 65536)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert termios.tcgetattr(terminal)[3] & termios.ICANON
    assert a.sum() == 0
