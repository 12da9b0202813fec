"""The tutorial about workers of a server, with gunicorn as the server."""

import collections
import contextlib
import os
import signal
import subprocess
import sys
import urllib.request

import pytest
import support

pytest.importorskip("gunicorn")

APPLICATION = """
import os
import numpy as np
import sharedmem

def read_model():
    with open("reads", "a") as file:
        file.write("read\\n")
    model = sharedmem.empty((1000, 125))
    model[:] = np.arange(1000.0)[:, None]
    return model

model = sharedmem.get_or_create("server-workers-model-v1", read_model)

def app(environ, start_response):
    body = f"{os.getpid()} {model[int(environ['PATH_INFO'][1:])].sum()}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


@contextlib.contextmanager
def server(folder, *options):
    """A server with two workers in that folder; a function that requests the sum of a row from it."""
    (folder / "application.py").write_text(APPLICATION)
    env = support.environment(related=False, SHAREDMEM_NAMESPACE=str(folder), HOME=str(folder))
    command = [sys.executable, "-m", "gunicorn", "--workers=2", "--bind=127.0.0.1:0", *options]
    with subprocess.Popen(
        [*command, "application:app"], cwd=folder, env=env, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            line = next(line for line in process.stderr if "Listening at" in line)
            address = line.split("Listening at: ")[1].split()[0]

            def ask(row):
                found = []

                def answered():
                    with contextlib.suppress(OSError):
                        found.extend(urllib.request.urlopen(f"{address}/{row}", timeout=5).read().split())
                    return found

                assert support.wait_until(answered)
                return int(found[0]), float(found[1])

            yield ask
        finally:
            process.terminate()
            process.stderr.read()
        assert process.wait(support.TIMEOUT) == 0


def kill(pid):
    with contextlib.suppress(ProcessLookupError):  # the server had ended it
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=str)
def test_the_workers_have_one_table_and_those_that_follow_killed_ones(tmp_path, options):
    with server(tmp_path, *options) as ask:
        seen = collections.Counter()
        assert support.wait_until(lambda: seen.update([ask(3)[0]]) or len(seen) == 2)
        first, second = seen
        kill(first)
        if options:  # with --preload the master has it, too: all workers may be killed at once
            kill(second)
        assert support.wait_until(lambda: ask(14)[0] not in (first, second))
        kill(second)
        assert ask(159)[1] == 159 * 125
        # Not later: who takes the second one's place may start when the server has ended all others.
        assert (tmp_path / "reads").read_text() == "read\n"
