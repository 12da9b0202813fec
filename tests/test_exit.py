"""The end of an interpreter: silent and with status 0, whatever is still alive."""

import pytest
from support import START_METHODS, check_python

STRICT = ("-X", "dev", "-W", "error")


CASES = {
    "nothing but the import": "",
    "a global": "a = sharedmem.ones(1000)",
    "many globals": "arrays = [sharedmem.full(i + 1, float(i)) for i in range(100)]; views = "
    "[a[::-1] for a in arrays]",
    "a cycle": """
class Node: pass
node = Node(); node.a = sharedmem.ones(1000); node.node = node; node.view = node.a[1:]
""",
    "a cycle with a finalizer": """
class Node:
    def __del__(self):
        self.a += 1
        del self.a
node = Node(); node.a = sharedmem.ones(1000); node.node = node
""",
    "collector switched off": "import gc; gc.disable(); x = [sharedmem.ones(10)]; x.append(x)",
    "in sys and builtins": """
import builtins, sys
sys.kept = sharedmem.ones(1000); builtins.kept = sys.kept[1:]
""",
    "an atexit handler that uses one": """
import atexit
a = sharedmem.ones(1000)
atexit.register(lambda: a.sum())
atexit.register(lambda: pickle.loads(pickle.dumps(a)).sum())
""",
    "an atexit handler that makes one": """
import atexit
kept = []
atexit.register(lambda: kept.append(sharedmem.ones(1000)))
""",
    "an atexit handler registered before the import": "",
    "a daemon thread": """
import threading, time
def work():
    a = sharedmem.ones(1000)
    while True:
        a = sharedmem.ones(1000)
        time.sleep(0)
threading.Thread(target=work, daemon=True).start()
time.sleep(0.05)
""",
    "a thread that is waited for": """
import threading, time
def work():
    a = sharedmem.ones(1000)
    time.sleep(0.2)
    b = sharedmem.full(1000, 2.0)
    assert (b + a).sum() == 3000
threading.Thread(target=work).start()
""",
    "thread locals": """
import threading
local = threading.local(); local.a = sharedmem.ones(10)
""",
    "a generator that is not finished": """
def generate():
    a = sharedmem.ones(10)
    try:
        yield a
    finally:
        a += 1
g = generate(); kept = next(g)
""",
    "a memoryview and a capsule": """
import numpy as np
view = memoryview(sharedmem.ones(10)); other = np.from_dlpack(sharedmem.ones(10))
""",
    "an exception kept": """
import sys
try:
    pickle.loads(pickle.dumps(sharedmem.ones(10)))
except ValueError as error:
    kept = error
else:
    print("stale")
""",
    "weak callbacks": """
import weakref
a = sharedmem.ones(10)
weakref.finalize(a, lambda: sharedmem.ones(10).sum())
""",
    "by value left on": "switch = sharedmem.pickle_by_value(); switch.__enter__()",
    "modules removed": """
import sys
a = sharedmem.ones(10)
for name in [n for n in sys.modules if n.partition('.')[0] in ("sharedmem", "numpy")]:
    del sys.modules[name]
""",
    "subclass": """
class Image(sharedmem.SharedArray):
    def __del__(self): pass
image = sharedmem.ones(5).view(Image); image.itself = image
""",
}


@pytest.mark.parametrize("case", CASES)
def test_silent(case):
    code = f"import pickle\nimport sharedmem\n{CASES[case]}\n"
    if case == "an atexit handler registered before the import":
        code = "import atexit\natexit.register(lambda: a.sum())\nimport sharedmem\na = sharedmem.ones(3)"
    if case == "an exception kept":
        code = code.replace(
            "pickle.loads(pickle.dumps(sharedmem.ones(10)))",
            "x = pickle.dumps(sharedmem.ones(10)); a = sharedmem.ones(10); pickle.loads(x)",
        )
        code = code.replace("kept = error", "kept = error; frame = sys._getframe()")
    assert check_python(code, flags=STRICT) in ("", "stale")


@pytest.mark.parametrize("ending", ["sys.exit(0)", "raise SystemExit", "os._exit(0)"])
def test_silent_however_it_ends(ending):
    code = f"import os, sys, sharedmem\na = sharedmem.ones(1000)\n{ending}"
    assert check_python(code, flags=STRICT) == ""


CHILDREN = """
import multiprocessing, sys
import workers, sharedmem

def main():
    context = multiprocessing.get_context(sys.argv[1])
    a = sharedmem.zeros(1000)
    queue = context.Queue()
    child = context.Process(target=workers.put, args=(queue, a))
    child.start()
    b = queue.get()
    child.join()
    with context.Pool(2) as pool:
        results = pool.map(workers.increment, [a[:500], a[500:]])
        pool.close()
        pool.join()
    queue.close()
    queue.join_thread()
    manager = context.Manager()
    shelf = manager.dict(a=a)
    globals().update(locals())

main()
assert a.sum() == 1000
"""


@pytest.mark.parametrize("start_method", START_METHODS)
def test_silent_with_children(start_method):
    assert check_python(CHILDREN, start_method, flags=STRICT) == ""


def test_silent_with_an_executor_that_is_not_shut_down():
    code = """
    import concurrent.futures, multiprocessing
    import workers, sharedmem
    executor = concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))
    a = sharedmem.zeros(10)
    future = executor.submit(workers.increment, a)
    future.result(60)
    """
    assert check_python(code, flags=STRICT) == ""


def test_silent_in_a_daemonic_child_that_is_terminated():
    code = """
    import multiprocessing, time
    import workers, sharedmem
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=workers.serve, args=(theirs,), daemon=True)
    child.start()
    theirs.close()
    a = sharedmem.ones(10)
    ours.send((workers.hold, ("a", a)))
    assert ours.recv() == ("returned", None)
    """
    assert check_python(code, flags=STRICT) == ""


def test_the_import_starts_no_thread_no_process_and_no_tracker():
    code = """
    import os, sys
    import numpy
    threads, fds = len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))
    import sharedmem
    a = sharedmem.ones(1000)
    kept = [sharedmem.ones(10) for _ in range(1000)]
    assert len(os.listdir("/proc/self/task")) == threads
    assert len(os.listdir("/proc/self/fd")) <= fds + 2
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        assert file.read() == ""
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    assert tracker is None or tracker._resource_tracker._pid is None
    """
    check_python(code, flags=STRICT)


def test_the_import_alone_prints_nothing_and_changes_no_handlers():
    code = """
    import os, signal, sys, threading
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    functions = os._exit, os.fork, sys.excepthook, threading.excepthook
    import sharedmem
    assert handlers == [signal.getsignal(number) for number in signal.valid_signals()]
    assert functions == (os._exit, os.fork, sys.excepthook, threading.excepthook)
    """
    assert check_python(code, flags=STRICT) == ""


@pytest.mark.parametrize("where", ["creation", "pickling", "unpickling", "sending", "drop"])
def test_keyboard_interrupt_leaves_a_sound_state(where):
    code = """
    import pickle, random, sys, threading, time
    from multiprocessing.reduction import ForkingPickler
    import sharedmem, workers
    kept = sharedmem.full(1000, 3.0)
    data = pickle.dumps(kept)
    settled = sharedmem.stats()["live_blocks"]
    inside, count = threading.Event(), 0
    def interrupt():
        generator = random.Random(1)
        for _ in range(100):
            inside.wait()
            inside.clear()
            time.sleep(generator.uniform(0.0005, 0.003))
            workers.interrupt()
    thread = threading.Thread(target=interrupt)
    thread.start()
    for _ in range(100):
        try:
            inside.set()
            while True:
                if sys.argv[1] == "creation":
                    a = sharedmem.ones(1000)
                    b = sharedmem.zeros(3_000_000, "u1")
                elif sys.argv[1] == "unpickling":
                    c = pickle.loads(data)
                elif sys.argv[1] == "pickling":
                    c = pickle.dumps([kept, kept[::2], sharedmem.ones(10)])
                elif sys.argv[1] == "sending":
                    c = bytes(ForkingPickler.dumps([kept, sharedmem.ones(10)]))
                    c = pickle.loads(c)
                else:
                    d = [sharedmem.empty(100) for _ in range(100)]
                    del d
        except KeyboardInterrupt:
            count += 1
    thread.join()
    a = b = c = d = None
    assert count == 100
    sharedmem.revoke(0)     # what was sent, and its bytes dropped before they were loaded
    assert sharedmem.stats()["live_blocks"] == settled, sharedmem.stats()
    assert sharedmem.stats()["leases"] == 0 == sharedmem.stats()["bytes_in_flight"]
    assert (kept == 3).all() and (pickle.loads(data) == 3).all()
    assert (sharedmem.ones(1000) == 1).all()
    """
    check_python(code, where)
