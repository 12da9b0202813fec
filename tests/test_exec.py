"""A process that becomes another program, by exec: what it sent can be read, and nothing of it stays."""

import subprocess
import sys

import pytest
import workers
from support import Remote, check_python, environment, wait_until
from test_orderly_ends import LONG, MARK, mark, marked

__all__ = ["mark"]

# Sends an array from an arena that no other process has, and calls exec.
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


def test_no_process_lingers_once_they_are_read(sender, mark):
    process, message = sender
    with Remote("unrelated") as reader:
        reader.call(workers.total_of_handle, message)
        assert wait_until(lambda: marked(mark) == [process.pid])


# An exec that fails, and then an end in good order, alone.
FAILS = """
import os
from multiprocessing.reduction import ForkingPickler
import sharedmem
a = sharedmem.full(1000, 3.0)
if {early}:
    message = bytes(ForkingPickler.dumps(a))
try:
    os.execlp("no-such-program", "no-such-program")
except FileNotFoundError:
    message = bytes(ForkingPickler.dumps(a))
    print(message.hex())
"""


@pytest.mark.parametrize("early", [False, True])
def test_after_an_exec_that_fails_it_ends_as_any_process(early, mark):
    message = bytes.fromhex(check_python(FAILS.format(early=early), **LONG, **{MARK: mark}))
    with Remote("unrelated") as reader:
        assert reader.call(workers.total_of_handle, message) == 3000
        assert wait_until(lambda: not marked(mark))


# An exec that fails, and then a child that sends and ends in good order.
COUNTED_ON = """
import os, sys
from multiprocessing.reduction import ForkingPickler
from test_orderly_ends import marked
import sharedmem
a = sharedmem.full(1000, 3.0)
try:
    os.execlp("no-such-program", "no-such-program")
except FileNotFoundError:
    pass
if os.fork() == 0:
    ForkingPickler.dumps(a)
    sys.exit()
os.wait()
print(marked(sys.argv[1]) == [os.getpid()])
sharedmem.revoke(0)
"""


def test_others_count_on_a_process_whose_exec_has_failed(mark):
    assert check_python(COUNTED_ON, mark, **LONG, **{MARK: mark}) == "True"
