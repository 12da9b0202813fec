"""Arrays made within sharedmem.allocator: freed in forked children, by other threads, at the end."""

import gc
import os
import pickle
import signal
import sys
import threading

import numpy as np
import pytest
import support
import workers

import sharedmem

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # os.fork in a process with threads


def live():
    gc.collect()
    return sharedmem.stats()["live_bytes"]


SIZES = (1, 100, 10_000, 1_000_000)


def made():
    with sharedmem.allocator():
        return [np.full(n, float(n)) for n in SIZES]


def check(arrays):
    assert [a[-1] for a in arrays] == list(SIZES)
    assert all((a == a[0]).all() for a in arrays)


def test_a_forked_child_frees_what_it_inherited():
    before = live()
    arrays = made()

    def child():
        check(arrays)
        arrays[0][0] = 1.0
        arrays.clear()
        assert live() <= before + 4096
        check(made())

    assert support.in_fork(child) == 0
    check(arrays)
    arrays.clear()
    assert live() == before


def test_the_parent_frees_first():
    arrays = made()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:

        def child():
            os.read(reading, 1)
            others = made()
            check(arrays)
            check(others)
            for a in arrays:
                a.resize(2 * a.size, refcheck=False)
            assert [a[:n].sum() for a, n in zip(arrays, SIZES, strict=True)] == [float(n) * n for n in SIZES]

        workers.exit_with(child)
    arrays.clear()
    again = made()
    os.write(writing, b"x")
    os.close(writing)
    os.close(reading)
    assert support.reap(pid) == 0
    check(again)


def test_a_child_forked_within_the_block_continues_in_it():
    with sharedmem.allocator():
        a = np.ones(1000)

        def child():
            b = np.ones(1000)
            assert sharedmem.is_shared(b)
            assert not np.shares_memory(a, b)

        assert support.in_fork(child) == 0
        assert sharedmem.is_shared(np.ones(3))


def test_grandchildren_and_kills():
    arrays = made()

    def child():
        def grandchild():
            with sharedmem.allocator():
                kept = [a + 1 for a in arrays]
            assert sharedmem.is_shared(kept[0])
            os.kill(os.getpid(), signal.SIGKILL)

        assert support.in_fork(grandchild) == -signal.SIGKILL
        arrays.clear()
        os.kill(os.getpid(), signal.SIGKILL)

    assert support.in_fork(child) == -signal.SIGKILL
    sharedmem.collect()
    check(arrays)
    sharedmem.arena.check()


def test_fork_while_other_threads_make_and_drop_arrays():
    stop = threading.Event()
    failed = []

    def work():
        try:
            while not stop.is_set():
                check(made())
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            assert support.in_fork(lambda: check(made())) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join(support.TIMEOUT)
    assert failed == []


def test_a_receiver_keeps_what_its_sender_drops():
    a = made()[2]
    with support.Remote("spawn") as other:
        other.call(workers.hold, "a", sharedmem.asshared(a))
        del a
        made()
        assert other.call(workers.total_held, "a") == 10_000.0**2


def test_dropped_in_another_thread():
    before = live()
    arrays = made()
    thread = threading.Thread(target=arrays.clear)
    thread.start()
    thread.join(support.TIMEOUT)
    assert live() == before


def test_after_a_new_arena():
    code = """
        import gc, sys
        import numpy as np
        import sharedmem
        with sharedmem.allocator():
            a, large = np.ones(1000), np.ones(4 << 20)
            sharedmem.new_arena()
            b = np.ones(1000)
            a.resize(100_000, refcheck=False)
            assert sharedmem.is_shared(a) and sharedmem.is_shared(b) and a.sum() == 1000
            c = np.ones(1000)
            del b
        del a, c
        gc.collect()
        sharedmem.cleanup()
        del large       # which lies in the former arena
        assert sharedmem.stats()["live_bytes"] == 0
        assert sharedmem.cleanup() >= int(sys.argv[1])
    """
    support.check_python(code, support.given_back(32 << 20))


ENDS = {
    "globals": "",
    "within the block": "sharedmem.allocator().__enter__(); b = np.ones(1000)",
    "a cycle": "x = [a]; x.append(x); del a",
    "in sys and builtins": "import builtins, sys; sys.kept = a; builtins.kept = np.vstack([a, a])",
    "thread locals": "import threading; local = threading.local(); local.a = a; del a",
    "an atexit handler": """
import atexit
def end():
    with sharedmem.allocator():
        b = a + 1
        b.resize(100_000)
    assert sharedmem.is_shared(b)
atexit.register(end)
""",
    "a daemon thread": """
import threading, time
def work():
    with sharedmem.allocator():
        while True:
            b = np.ones(1000) + 1
            c = np.ones(1 << 20)
            time.sleep(0)
threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
""",
    "a generator within the block": """
def generate():
    with sharedmem.allocator():
        yield np.ones(1000)
g = generate(); kept = next(g)
""",
    "a child that was forked": """
import os
if os.fork() == 0:
    b = a[1:]
else:
    os.wait()
""",
    "os._exit": "import os; os._exit(0)",
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_the_end_is_silent(end):
    code = "import numpy as np, sharedmem\nwith sharedmem.allocator():\n    a = np.ones(1000)\n"
    support.check_python(code + end, flags=("-X", "dev", "-W", "error"))


def test_a_child_made_without_fork_handlers():
    """It must not free, and cannot grow, what it only inherited; what it makes is its own."""
    if sys.maxsize < 2**32:
        pytest.skip("by the number of a system call of 64 bit")
    said = support.check_python(
        """
        import ctypes, os, platform
        import numpy as np, sharedmem
        with sharedmem.allocator():
            arrays = [np.full(n, 5.0) for n in (10, 1000, 1_000_000)]
        clone, SIGCHLD = {"x86_64": 56, "aarch64": 220}[platform.machine()], 17
        pid = ctypes.PyDLL(None).syscall(clone, SIGCHLD, 0, 0, 0, 0)
        if pid == 0:
            code = 1
            try:
                arrays.clear()
                with sharedmem.allocator():
                    b = [np.full(n, 6.0) for n in (10, 1000, 1_000_000)]
                code = 0 if all(map(sharedmem.is_shared, b)) else 2
                b.clear()
            finally:
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        with sharedmem.allocator():
            more = [np.full(n, 7.0) for n in (10, 1000, 1_000_000)]
        print(all((a == 5).all() for a in arrays))
        """
    )
    assert said.split() == ["0", "True"]


def test_handles_of_views():
    with sharedmem.allocator():
        a = np.arange(1000.0).reshape(10, 100)
    view = pickle.loads(pickle.dumps(sharedmem.asshared(a[::2, 5:])))
    view[0, 0] = -1
    assert a[0, 5] == -1
    del a
    made()
    assert view[0, 0] == -1
    assert view[1, 0] == 205
