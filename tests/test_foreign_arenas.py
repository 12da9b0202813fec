"""Arrays of another tree: their arena is attached with the first one and left with the last one."""

import ctypes
import os
import pickle
import sys

import pytest
import workers
from support import Remote, check_python, environment, private_memory

import sharedmem


@pytest.fixture
def foreign_handle():
    """Handle of an array of 1000 ones that a process of another tree has."""
    with Remote("unrelated") as owner:
        owner.call(workers.hold_full, "a", 1000, 1.0)
        yield owner.call(workers.plain_handle, "a")


@pytest.mark.parametrize("call", ["stats()", "cleanup()", "collect()", "revoke(1e6)", "arena.check()"])
def test_it_is_not_left_while_a_thread_looks_for_an_address(call, foreign_handle):
    code = """
    import pickle, sys, threading
    import sharedmem, sharedmem.arena
    handle, call = bytes.fromhex(sys.argv[1]), compile("sharedmem." + sys.argv[2], "call", "eval")
    sharedmem.ones(1)
    stop = threading.Event()
    def ask():
        while not stop.is_set():
            eval(call)
    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads: thread.start()
    for n in range(3000):
        a = pickle.loads(handle)
        a[0] = n
        del a
    stop.set()
    for thread in threads: thread.join()
    print(sharedmem.stats()["attached_arenas"])
    """
    assert check_python(code, foreign_handle.hex(), call) == "1"


def test_it_is_left_although_threads_look_for_addresses(foreign_handle):
    code = """
    import pickle, sys, threading
    import numpy, sharedmem
    handle, plain = bytes.fromhex(sys.argv[1]), numpy.ones(3)
    sharedmem.ones(1)
    sys.setswitchinterval(1e-5)
    stop = threading.Event()
    def ask():
        while not stop.is_set():
            for _ in range(1000):
                sharedmem.is_shared(plain)
    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads: thread.start()
    kept = 0
    for n in range(2000):
        a = pickle.loads(handle)
        del a
        kept += sharedmem.stats()["attached_arenas"] - 1
    stop.set()
    for thread in threads: thread.join()
    print(kept)
    """
    assert check_python(code, foreign_handle.hex()) == "0"


def whether_it_is_shared(a):
    """Of an array that came by handle: is_shared, and whether its pickle is a handle; before and after this
    process has an arena of its own."""
    found = []
    for _ in range(2):
        found.append((sharedmem.is_shared(a), len(pickle.dumps(a)) < 500, sharedmem.asshared(a) is a))
        sharedmem.ones(1)
    return found


def receive(conn):
    conn.send(whether_it_is_shared(conn.recv()))
    conn.close()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_worker_with_a_tree_of_its_own_receives_shared_arrays(method):
    code = """
    import multiprocessing, os, sys
    import sharedmem, test_foreign_arenas
    context = multiprocessing.get_context(sys.argv[1])
    ours, theirs = context.Pipe()
    os.environ["SHAREDMEM_ARENA"] = "new"
    process = context.Process(target=test_foreign_arenas.receive, args=(theirs,))
    process.start()
    theirs.close()
    ours.send(sharedmem.ones(1 << 16))
    print(ours.recv())
    process.join()
    """
    assert check_python(code, method) == str([(True, True, True)] * 2)


def load_often(conn):
    handle = conn.recv()

    def load(number):
        for _ in range(number):
            pickle.loads(handle)

    load(500)
    before = private_memory()
    load(20_000)
    conn.send(private_memory() - before)
    conn.close()


def test_receiving_alone_takes_no_private_memory():
    """A worker that has made no array yet looks at each load which arena it was offered."""
    code = """
    import multiprocessing, os, pickle
    import sharedmem, test_foreign_arenas
    a = sharedmem.ones(1000)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    os.environ["SHAREDMEM_ARENA"] = "new"
    process = context.Process(target=test_foreign_arenas.load_often, args=(theirs,))
    process.start()
    theirs.close()
    ours.send(pickle.dumps(a))
    print(ours.recv() < 1 << 20)
    process.join()
    """
    assert check_python(code) == "True"


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "_Fork"), reason="needs _Fork of glibc 2.34"
)
@pytest.mark.parametrize("use", ["sharedmem.ones(10)", "pickle.loads(handle)"])
def test_a_child_without_fork_handlers_waits_for_no_thread_of_its_parent(use, foreign_handle):
    code = """
    import ctypes, os, pickle, sys, threading, time
    import sharedmem
    handle, use = bytes.fromhex(sys.argv[1]), compile(sys.argv[2], "use", "eval")
    sharedmem.ones(10)
    fork = ctypes.PyDLL(None)._Fork     # keeps the GIL; the other thread is in C++ without it
    stop = threading.Event()
    def attach_and_leave():
        while not stop.is_set():
            pickle.loads(handle)
    thread = threading.Thread(target=attach_and_leave)
    thread.start()
    ends = []
    for n in range(40):
        time.sleep(0.003)
        child = fork()
        if child == 0:
            ctypes.CDLL(None).alarm(60)
            eval(use)
            os._exit(0)
        ends.append(os.waitpid(child, 0)[1])
        if ends[-1] != 0: break
    stop.set()
    thread.join()
    print(set(ends))
    """
    assert check_python(code, foreign_handle.hex(), use) == "{0}"


def test_the_environment_is_not_written_without_need(python):
    """Other libraries read it without a lock: a worker finds it as it has to be."""
    code = """
    import os, sys
    import sharedmem
    written = []
    sys.addaudithook(lambda event, args: written.append(args[0]) if event == "os.putenv" else None)
    sharedmem.ones(1)
    sharedmem.ones(1)
    print(written, os.environ["SHAREDMEM_ARENA"] != "")
    """
    assert python(code, related=True) == "[] True"
    assert environment()["SHAREDMEM_ARENA"] == os.environ["SHAREDMEM_ARENA"]
