"""Large copies by several threads: the same bytes as by one, and no thread is left."""

import os
import signal
import threading
import time

import numpy as np
import pytest
import support

import sharedmem

# Enough for three threads, in an interpreter of its own with that setting.
ITEMS = 50 << 20

needs_room = pytest.mark.skipif(
    support.memory("MemAvailable") < 1 << 30, reason="needs 1 GiB of available memory"
)

PREPARE = f"""
import os, threading
import numpy as np
import sharedmem
ITEMS = {ITEMS}
rng = np.random.default_rng(5)
def check(a, expected):
    assert sharedmem.is_shared(a) and a.dtype == expected.dtype and a.shape == expected.shape
    assert (a == expected).all()
"""

CASES = {
    "fills of every item size": """
numbers = ("i1", 7), ("i2", -3), ("f4", 0.1), ("f8", 2.5), ("c16", 1 + 2j)
for dtype, value in (*numbers, ("S5", b"abc"), ("U7", "xyz")):
    n = ITEMS // np.dtype(dtype).itemsize - 1
    check(sharedmem.full(n, value, dtype), np.full(n, value, dtype))
check(sharedmem.ones(ITEMS // 8), np.ones(ITEMS // 8))
""",
    "zeros in memory that was used": """
n = ITEMS + 13
a = sharedmem.full(n, 255, np.uint8)
del a
assert not sharedmem.zeros(n, np.uint8).any()
""",
    "copies of contiguous arrays": """
a = rng.random((ITEMS // 8000, 1000))
check(sharedmem.array(a), a)
check(sharedmem.copy(np.asfortranarray(a)), a)
check(sharedmem.copy(a, "F"), a)
check(sharedmem.copy(a.T), a.T)
check(sharedmem.array(a.view("S8")), a.view("S8"))
""",
    "copies of permuted axes": """
a = rng.random((70, 90, ITEMS // 8 // 6300))
for axes in ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1)):
    b = a.transpose(axes)
    for order in "KC":
        c = sharedmem.copy(b, order)
        check(c, b)
        assert c.strides == b.copy(order).strides, (axes, order)
check(sharedmem.copy(a[:, :1].transpose(2, 0, 1)), a[:, :1].transpose(2, 0, 1))
""",
    "copies of strides, gaps, overlaps and other dtypes": """
a = rng.random((ITEMS // 8000, 2000))
for b in (a[:, ::2], a[::-1, :1000], a[:, 500:1500], a[::-2], a.T[::2]):
    check(sharedmem.copy(b), b)
b = np.lib.stride_tricks.as_strided(a, (a.shape[0] - 1, 1500), (8 * 700, 8))
check(sharedmem.copy(b), b)
check(sharedmem.copy(np.broadcast_to(a[0], (3000, 2000))), np.broadcast_to(a[0], (3000, 2000)))
check(sharedmem.array(a, np.float32), a.astype(np.float32))
check(sharedmem.array(a, ">f8"), a.astype(">f8"))
""",
    "structures": """
a = np.zeros(ITEMS // 13, np.dtype([("x", "f8"), ("y", "S5")]))
a["x"], a["y"] = np.arange(len(a)), b"hello"
check(sharedmem.array(a), a)
check(sharedmem.full(ITEMS // 13, a[3]), np.full(ITEMS // 13, a[3]))
""",
    "from shared memory, of itself": """
a = sharedmem.array(rng.random(ITEMS // 8))
b = sharedmem.copy(a)
assert not np.shares_memory(a, b)
check(b, np.asarray(a))
""",
    "pages": """
import resource
for n in (64 << 20, 64 << 20 | 4097, 200 << 20):
    a = sharedmem.empty(n, np.uint8, populate=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    assert not a.any()      # fresh memory, and all of it there
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < n // 4096 // 2
    sharedmem.cleanup()
""",
    "in a forked child": """
a = sharedmem.ones(ITEMS // 8)
pid = os.fork()
if pid == 0:
    check(sharedmem.copy(a), np.asarray(a))
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
""",
}

AFTER = """
import time
end = time.monotonic() + 60
while len(os.listdir("/proc/self/task")) > threads:     # the kernel counts a joined thread a moment longer
    assert time.monotonic() < end
"""


@needs_room
@pytest.mark.parametrize("case", CASES)
def test_as_by_one_thread(case):
    code = PREPARE + 'threads = len(os.listdir("/proc/self/task"))\n' + CASES[case] + AFTER
    support.check_python(code, SHAREDMEM_COPY_THREADS=3, OPENBLAS_NUM_THREADS=1)


@needs_room
def test_several_threads_work_at_once():
    """Another thread sees them, for pages and for fills."""
    support.check_python(
        """
        import os, sys, threading, time
        import numpy as np
        import sharedmem
        count = lambda: len(os.listdir("/proc/self/task"))
        before, most, stop = count() + 1, 0, threading.Event()
        def watch():
            global most
            while not stop.is_set():
                most = max(most, count())
        threading.Thread(target=watch).start()
        end = time.monotonic() + 60
        def pages():
            sharedmem.empty(200 << 20, np.uint8, populate=True)
            sharedmem.cleanup()
        def fill():
            sharedmem.ones(25 << 20)
        for make in (pages, fill):
            most = 0
            while most < before + 2 and time.monotonic() < end:
                make()
            assert most == before + 2, most
        stop.set()
        """,
        SHAREDMEM_COPY_THREADS=3,
        OPENBLAS_NUM_THREADS=1,
    )


@pytest.mark.parametrize("value", ["0", "-1", "65", "2.5", "many", "3 4"])
def test_a_setting_without_sense(value):
    said = support.check_python(
        "import sharedmem\ntry: sharedmem.ones(3)\nexcept ValueError as error: print(error)",
        SHAREDMEM_COPY_THREADS=value,
    )
    assert said == f"SHAREDMEM_COPY_THREADS is '{value}', which is not a whole number from 1 to 64"


@needs_room
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fork_while_another_thread_copies():
    support.check_python(
        """
        import os, signal, threading, warnings
        import numpy as np
        import sharedmem
        warnings.simplefilter("ignore", DeprecationWarning)
        source, stop, failed = np.arange(6 << 20), threading.Event(), []
        def work():
            while not stop.is_set():
                a = sharedmem.copy(source)
                if not (a[::4096] == source[::4096]).all(): failed.append(a)
                del a
                sharedmem.cleanup()
        thread = threading.Thread(target=work)
        thread.start()
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                signal.alarm(60)
                a = sharedmem.copy(source)
                os._exit(0 if (a == source).all() else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        stop.set()
        thread.join()
        assert not failed
        """,
        SHAREDMEM_COPY_THREADS=3,
    )


@needs_room
def test_ctrl_c_is_noticed_after_the_copy():
    said = support.check_python(
        """
        import threading
        import numpy as np
        import sharedmem, workers
        source = np.ones(12 << 20)
        threading.Timer(0.3, workers.interrupt).start()
        try:
            while True:
                a = sharedmem.copy(source)
        except KeyboardInterrupt:
            print("interrupted", (sharedmem.copy(source) == 1).all())
        """,
        SHAREDMEM_COPY_THREADS=3,
    )
    assert said == "interrupted True"


@needs_room
def test_killed_in_the_middle():
    pid = os.fork()
    if pid == 0:
        while True:
            sharedmem.ones(16 << 20)
            sharedmem.cleanup()
    time.sleep(0.2)
    os.kill(pid, signal.SIGKILL)
    assert support.reap(pid) == -signal.SIGKILL
    sharedmem.collect()
    sharedmem.arena.check()
    assert (sharedmem.ones(1 << 20) == 1).all()


@needs_room
def test_other_python_threads_run_meanwhile():
    counted = 0
    stop = threading.Event()

    def count():
        nonlocal counted
        while not stop.is_set():
            counted += 1
            time.sleep(0)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        source = np.ones(25 << 20)
        before = counted
        end = time.monotonic() + support.TIMEOUT
        while counted < before + 10:
            sharedmem.copy(source)
            assert time.monotonic() < end
    finally:
        stop.set()
        thread.join()
