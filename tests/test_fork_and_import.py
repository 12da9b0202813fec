"""A fork while another thread uses a name of the package for the first time, and imports its module."""

import pathlib
import re

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


#: Functions that are only called during an import of another package, so that its lock is held.
INSIDE_OTHER_IMPORTS = {("_integrations/__init__.py", "_file"), ("_transfers/saving.py", "_change")}

#: Called by a function that holds the lock.
UNDER_THE_LOCK = {("__init__.py", "_import"), ("__init__.py", "_import_for_library")}


def imports_in_functions(text):
    """Of each import of this package in a function: the function's name, and whether it holds the lock."""
    around = []  # indentation and text of the lines that open the blocks around this one
    for line in text.splitlines():
        words = line.strip()
        if not words or words.startswith("#"):
            continue
        indentation = len(line) - len(line.lstrip())
        while around and around[-1][0] >= indentation:
            around.pop()
        if re.match(r"(from|import) sharedmem\b", words) and " cimport " not in words:
            functions = [re.match(r"(?:def|cdef|cpdef)\b.*?(\w+)\(", opening) for _, opening in around]
            names = [found[1] for found in functions if found]
            if names:
                yield names[-1], any(opening == "with import_lock:" for _, opening in around)
        around.append((indentation, words))


def test_every_import_in_a_function_holds_the_lock_that_a_fork_waits_for():
    """A child of a fork in the middle of another thread's import would wait for ever for its lock."""
    package = pathlib.Path(__file__).parents[1] / "sharedmem_pyx" / "sharedmem"
    found, without = set(), set()
    for path in sorted({*package.rglob("*.py"), *package.rglob("*.pyx")}):
        name = path.relative_to(package).as_posix()
        if name.startswith("_cli/") or name == "__main__.py":
            continue  # a program of its own, which does not fork
        for function, locked in imports_in_functions(path.read_text()):
            (found if locked else without).add((name, function))
    assert without == INSIDE_OTHER_IMPORTS | UNDER_THE_LOCK
    assert len(found) > 8
