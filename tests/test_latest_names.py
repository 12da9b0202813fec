"""Latest by name: unrelated programs have the same one."""

import gc
import os
import pickle
import weakref

import numpy as np
import pytest
import support
from naming import killed, own_names, program, said  # noqa: F401

import sharedmem

PUT = """
latest = sharedmem.Latest(name=sys.argv[1])
for i in range(int(sys.argv[2])):
    number = latest.put(sharedmem.full(1000, i))
print(number, flush=True)
sys.stdin.readline()
"""


def names():
    return [(info.name, info.kind) for info in sharedmem.names() if info.name != "first"]


def test_a_stranger_puts_and_this_process_gets():
    latest = sharedmem.Latest(name="frames")
    with program(PUT, "frames", "3") as other:
        assert said(other) == "3"
        a, number = latest.get(timeout=support.TIMEOUT)
        assert number == 3
        assert (a == 2).all()
        with pytest.raises(RuntimeError, match=f"process {other.pid} puts"):
            latest.put(np.ones(1))
        killed(other)
    assert (latest.get(timeout=0)[0] == 2).all()
    assert latest.put(np.ones(1)) == 4
    with program(
        PUT.replace("latest.put(sharedmem.full(1000, i))", "latest.get(timeout=60)[1]"), "frames", "1"
    ) as other:
        assert said(other) == "4"
    assert names() == [("frames", "Latest")]
    del latest, a
    gc.collect()
    assert names() == []


def test_one_process_has_one_of_a_name():
    one = sharedmem.Latest(name="once")
    assert sharedmem.Latest(name="once") is one
    assert pickle.loads(pickle.dumps(one)) is one
    one.put(np.ones(3))
    again = support.dumps(one)
    del one
    assert names() == [("once", "Latest")]  # the message has it
    assert pickle.loads(again).get(timeout=0)[1] == 1


def test_other_things_of_that_name():
    lock = sharedmem.RLock(name="taken")
    with pytest.raises(ValueError, match=r"refers to a sharedmem\.RLock, not to a sharedmem\.Latest"):
        sharedmem.Latest(name="taken")
    with pytest.raises(TypeError):
        sharedmem.Latest(name=3)
    with pytest.raises(TypeError):
        sharedmem.Latest("taken")
    del lock
    latest = sharedmem.Latest(name="taken")
    with pytest.raises(ValueError, match=r"refers to a sharedmem\.Latest"):
        sharedmem.Event(name="taken")
    assert latest.put(np.ones(1)) == 1


def test_the_last_array_comes_back():
    before = sharedmem.stats()["leases"]
    latest = sharedmem.Latest(name="short")
    latest.put(np.ones(100))
    del latest
    gc.collect()
    assert sharedmem.stats()["leases"] == before
    assert names() == []


def test_getting_it_again_while_it_is_dropped_keeps_the_newest_array():
    """As a thread that loads a message does, when another one drops the last object of the process."""
    latest, again = sharedmem.Latest(), []
    latest.put(np.ones(3))
    message = pickle.dumps(latest)
    reference = weakref.ref(latest, lambda _: again.append(pickle.loads(message)))  # called before ours
    del latest
    assert reference() is None
    assert (again[0].get(timeout=0)[0] == 1).all()


def test_a_process_that_cannot_be_looked_at_is_not_taken_for_dead():
    """There is no file descriptor left to look into /proc."""
    latest, ready, done = sharedmem.Latest(), sharedmem.Event(), sharedmem.Event()
    pid = os.fork()
    if pid == 0:
        latest.put(np.zeros(1))
        ready.set()
        done.wait(support.TIMEOUT)
        os._exit(latest.put(np.zeros(1)) != 2)
    assert ready.wait(support.TIMEOUT)
    a = sharedmem.ones(1)
    with pytest.raises(RuntimeError, match="puts arrays"):
        latest.put(a)
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            latest.put(a)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    done.set()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
