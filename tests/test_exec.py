"""A process that becomes another program, by exec: what it sent can be read, and nothing of it stays."""

import os
import subprocess
import sys

import pytest
import workers
from support import Remote, environment, wait_until
from test_orderly_ends import LONG, MARK, mark, marked

import sharedmem

__all__ = ["mark"]

# Sends an array from an arena that nobody else has, and becomes another program.
SENDER = """
import os, sys
from multiprocessing.reduction import ForkingPickler
import sharedmem
print(bytes(ForkingPickler.dumps(sharedmem.full(1000, 3.0))).hex(), flush=True)
os.execlp(sys.executable, sys.executable, "-c", sys.argv[1])
"""

PROGRAMS = {
    "joins the arena": "import sharedmem; sharedmem.ones(3); print('ready', flush=True); input()",
    "does not": "print('ready', flush=True); input()",
}


@pytest.fixture(params=PROGRAMS)
def sender(request, mark):
    """(process, message): it has become another program, and sent the message before."""
    with subprocess.Popen(
        [sys.executable, "-c", SENDER, PROGRAMS[request.param]],
        env=environment(related=False, **LONG, **{MARK: mark}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        message = bytes.fromhex(process.stdout.readline())
        assert process.stdout.readline() == "ready\n"
        yield process, message
        process.communicate("\n")
    assert process.returncode == 0


def test_its_messages_can_be_read(sender):
    with Remote("unrelated") as reader:
        assert reader.call(workers.total_of_handle, sender[1]) == 3000


def test_nobody_lingers_for_it_once_they_are_read(sender, mark):
    process, message = sender
    with Remote("unrelated") as reader:
        reader.call(workers.total_of_handle, message)
        assert wait_until(lambda: marked(mark) == [process.pid])


def test_a_program_that_is_not_there():
    a = sharedmem.ones(10)
    with pytest.raises(FileNotFoundError):
        os.execv("/nowhere/to/be/found", ["found"])
    with Remote("spawn") as reader:
        assert reader.call(workers.total, a) == 10
