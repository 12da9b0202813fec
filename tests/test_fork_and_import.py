"""A fork while another thread uses a name of the package for the first time, and imports its module."""

import support

SLOW_IMPORT = """
import os, sys, threading, time, warnings
import sharedmem
warnings.simplefilter("ignore", DeprecationWarning)     # of a fork with threads

class Slow:
    # finds nothing, and takes its time
    def find_spec(self, name, path, target=None):
        if name == "sharedmem._naming":
            begun.set()
            time.sleep(0.5)

begun = threading.Event()
sys.meta_path.insert(0, Slow())
"""


def test_the_child_can_use_that_name():
    code = SLOW_IMPORT + (
        "thread = threading.Thread(target=lambda: sharedmem.NameInfo)\n"
        "thread.start()\n"
        "begun.wait()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    import signal\n"
        "    signal.alarm(30)\n"
        "    os._exit(0 if issubclass(sharedmem.BuildError, RuntimeError) else 1)\n"
        "print(os.waitpid(pid, 0)[1])\n"
        "thread.join()\n"
        "print(sharedmem.NameInfo.__name__)"
    )
    assert support.check_python(code).split() == ["0", "NameInfo"]


def test_a_fork_in_the_middle_of_the_import_itself():
    code = SLOW_IMPORT + (
        "class Forks:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'sharedmem._naming' and os.fork() == 0:\n"
        "            sys.meta_path.remove(self)\n"
        "            os._exit(0 if sharedmem.stats() else 1)\n"
        "sys.meta_path.insert(0, Forks())\n"
        "sharedmem.NameInfo\n"
        "print(os.wait()[1])\n"
        "thread = threading.Thread(target=lambda: sharedmem.Lock)\n"
        "thread.start()\n"
        "thread.join(30)\n"
        "print(thread.is_alive())"
    )
    assert support.check_python(code).split() == ["0", "False"]
