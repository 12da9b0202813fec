"""Tools for tests of names: unrelated programs."""

import contextlib
import os
import subprocess
import sys
import uuid

import pytest
import support

import sharedmem

#: One for all modules: their arena of names, the last one used, stays attached between tests.
NAMESPACE = f"tests {os.getpid()} {uuid.uuid4()}"

#: What a test may wait for whatever else runs; only a hang takes so long.
TIMEOUT = 60


@pytest.fixture(scope="module", autouse=True)
def own_names():
    """Names of these tests alone; this process has their arena before anything is counted."""
    before = os.environ.get("SHAREDMEM_NAMESPACE")
    os.environ["SHAREDMEM_NAMESPACE"] = NAMESPACE
    try:
        sharedmem.create("first", 1)
    except OSError as error:
        pytest.skip(f"there are no names here: {error}")
    yield
    for info in sharedmem.names():  # failed ones stay as long as their arena does
        sharedmem.unlink(info.name, missing_ok=True)
    if before is None:
        del os.environ["SHAREDMEM_NAMESPACE"]
    else:
        os.environ["SHAREDMEM_NAMESPACE"] = before


@contextlib.contextmanager
def program(code, *args, **env):
    """An unrelated program: it prints its results line by line, and is killed at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", "import sys, os, time\nimport numpy as np\nimport sharedmem\n" + code, *args],
        env=support.environment(related=False, **env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
            for stream in (process.stdin, process.stdout, process.stderr):
                stream.close()


def said(process):
    """The next line that a program says."""
    line = process.stdout.readline().strip()
    if not line:
        raise AssertionError(process.stderr.read())
    return line


def ended(process):
    """What a program said until it ended well."""
    output, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, errors
    return output


def killed(process):
    process.kill()
    process.wait(TIMEOUT)
