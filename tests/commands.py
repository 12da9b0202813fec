"""Runs `python -m sharedmem` in processes of their own."""

import os
import signal
import subprocess
import sys

import support


def start(*args, related=False):
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
    with start(*args, **options) as process:
        try:
            out, err = process.communicate(timeout=support.TIMEOUT)
        except BaseException:
            if sys.platform == "win32":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, out, err


def without_lines(table):
    """A printed table without the `|` between its columns, which it has where the output is not UTF-8."""
    return table.replace("|", " ")


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
