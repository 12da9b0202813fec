"""A server that restarts in place, by exec, while children of its that use the library live on."""

import json

import pytest
from support import check_python, run_python

# Restarts itself argv[3] times; the first program starts a child that is there until the end. What each one
# leaves is private, published by a fork, or in a message; the sizes make blocks of every kind.
SERVER = """
import json, os, pickle, signal, sys
from multiprocessing.reduction import ForkingPickler
import sharedmem
how, left = sys.argv[2], int(sys.argv[3])
sharedmem.ones(1)
if "CHILD" not in os.environ:
    ready, there = os.pipe()
    child = os.fork()
    if child == 0:
        sharedmem.ones(5)
        os.write(there, b"r")
        signal.pause()
    os.read(ready, 1)
    os.environ["CHILD"] = str(child)
held = [sharedmem.ones(size) for size in (10, 5000, 1 << 20)]
if how == "forked":
    if os.fork() == 0:
        os._exit(0)
    os.wait()
elif how == "sent":
    sent = [bytes(ForkingPickler.dumps(a)) for a in held]
if left:
    os.execv(sys.executable, [sys.executable, "-c", sys.argv[1], sys.argv[1], how, str(left - 1)])
try:
    sharedmem.collect(leases=True)
    sharedmem.cleanup()
    now = sharedmem.stats()
    now["pids"] = [p["pid"] for p in sharedmem.participants()]
    now["expected"] = [os.getpid(), int(os.environ["CHILD"])]
    print(json.dumps(now))
finally:
    os.kill(int(os.environ["CHILD"]), signal.SIGKILL)
    os.waitpid(int(os.environ["CHILD"]), 0)
"""


def restarted(how, times):
    return json.loads(check_python(SERVER, SERVER, how, times, SHAREDMEM_LINGER="0"))


@pytest.mark.parametrize("how", ["private", "forked", "sent"])
def test_restarts_in_place_leave_nothing_behind(how):
    once, often = restarted(how, 1), restarted(how, 20)
    assert sorted(often["pids"]) == sorted(often["expected"])
    assert often["shared_blocks"] == once["shared_blocks"]
    assert often["mapped_bytes"] <= once["mapped_bytes"] + (4 << 20)


def test_a_second_attachment_by_the_same_program_is_not_taken_for_an_earlier_one():
    """Threads that join at one moment find slots of their own process, of this program."""
    code = """
import os, subprocess, sys, threading, sharedmem
a = sharedmem.full(1000, 7.0)
for _ in range(5):
    if os.fork() == 0:
        threads = [threading.Thread(target=sharedmem.ones, args=(3,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        os._exit(0 if (a == 7).all() and sharedmem.stats()["participants"] >= 2 else 1)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
"""
    assert run_python(code)[0] == 0
