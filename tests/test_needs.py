"""What `needs` reads in a test: its own text, what that names, in other modules too, and its parameters."""

import ast
import pathlib
from types import SimpleNamespace

import needs
import pytest
from support import TESTS

MODULE = '''
import os, signal
import pytest
import sharedmem
import tools
from tools import forks as splits

PROGRAM = """
import os
os.fork()
"""
PLAIN = "1 + 1"


def helper():
    return other()


def other():
    with open("/proc/self/maps") as file:
        return file.read()


@pytest.fixture
def killed():
    os.kill(1, signal.SIGKILL)


def test_plain():
    assert eval(PLAIN) == 2


def test_program(python):
    python(PROGRAM)


def test_helper():
    assert helper()


def test_fixture(killed):
    pass


def test_by_attribute():
    sharedmem.other()


def test_imported():
    splits()


def test_by_attribute_of_a_tool(conn):
    conn.call(tools.calls_forks)


def test_program_with_a_tool(python):
    python("import tools; tools.forks()")


def test_tool_that_asks():
    tools.starts()


def test_constant_of_a_tool_that_asks():
    assert tools.METHODS


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_methods(method):
    pass


def test_calls_itself():
    test_calls_itself()
    os.setuid(1)


def test_compares(method):
    assert method != "fork" and (method == 'forkserver' or method == "spawn")


def test_compares_and_starts(method):
    assert method == "fork" or tools.starts("fork")
'''

TOOLS = """
import multiprocessing, os, sys

METHODS = [method for method in ("fork", "spawn") if method in multiprocessing.get_all_start_methods()]


def forks():
    os.fork()


def calls_forks():
    forks()


def starts():
    if sys.platform == "win32":
        os.startfile("program")
    else:
        forks()
"""


# The samples name what these tests themselves do not need.
sampled = pytest.mark.needs_nothing


@pytest.fixture
def needed(tmp_path):
    path = tmp_path / "test_sample.py"
    path.write_text(MODULE)
    (tmp_path / "tools.py").write_text(TOOLS)

    def ask(name, *fixtures, marker=None, **parameters):
        item = SimpleNamespace(
            path=path,
            function=SimpleNamespace(__name__=name),
            fixturenames=[*fixtures, *parameters],
            get_closest_marker=lambda asked: asked == marker or None,
        )
        if parameters:
            item.callspec = SimpleNamespace(params=parameters)
        return needs.of(item)

    return ask


@sampled
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("test_plain", set()),
        ("test_program", {"needs_fork"}),
        ("test_helper", {"needs_proc"}),
        ("test_by_attribute", set()),  # of a module that is not among the tests
        ("test_imported", {"needs_fork"}),
        ("test_by_attribute_of_a_tool", {"needs_fork"}),
        ("test_program_with_a_tool", {"needs_fork"}),
        ("test_tool_that_asks", set()),
        ("test_constant_of_a_tool_that_asks", set()),
        ("test_calls_itself", {"needs_posix"}),
        ("test_compares", set()),
        ("test_compares_and_starts", {"needs_fork"}),
    ],
)
def test_the_text_of_a_test_and_what_it_names(needed, name, expected):
    assert needed(name) == expected


@sampled
def test_a_fixture(needed):
    assert needed("test_fixture", "killed") == {"needs_signals"}
    assert needed("test_plain", "killed") == {"needs_signals"}  # one that is used without being named


@sampled
def test_a_parameter_instead_of_a_decorator(needed):
    assert needed("test_methods", method="fork") == {"needs_fork"}
    assert needed("test_methods", method="forkserver") == {"needs_fork"}
    assert needed("test_methods", method="spawn") == set()
    assert needed("test_methods", way="SIGKILL") == {"needs_signals"}
    assert needed("test_methods", count=3) == set()


@sampled
def test_a_parameter_that_is_a_function_of_the_tests(needed, tmp_path):
    found = {}
    exec(compile("def calls_forks(): pass", tmp_path / "tools.py", "exec"), found)
    assert needed("test_methods", way=found["calls_forks"]) == {"needs_fork"}
    assert needed("test_methods", way=ast.dump) == set()


@sampled
def test_a_marker(needed):
    assert needed("test_plain", marker="needs_linux") == {"needs_linux"}
    assert needed("test_program", marker="needs_nothing") == set()


def test_nothing_is_left_out_on_linux():
    if needs.sys.platform == "linux":
        assert needs.MISSING == {}


def test_each_marker_is_declared(pytestconfig):
    declared = {line.split(":")[0] for line in pytestconfig.getini("markers")}
    assert {*needs.NEEDS, "needs_nothing"} <= declared


#: What a system without fork lacks is taken away first. A module that is skipped as a whole is no fault.
IMPORT_ALL = """
import glob, importlib, multiprocessing, os, signal, subprocess, sys
import pytest, sharedmem
plain = multiprocessing.get_context
def get_context(method=None):
    if method in ("fork", "forkserver"):
        raise ValueError(f"cannot find context for {method!r}")
    return plain(method)
multiprocessing.get_context = get_context
multiprocessing.get_all_start_methods = lambda: ["spawn"]
del os.fork, os.getuid, os.geteuid, os.killpg, signal.SIGKILL, signal.SIGSTOP
for path in sorted(glob.glob(os.path.join(sys.argv[1], "test_*.py"))):
    name = os.path.basename(path)[:-3]
    try:
        importlib.import_module(name)
    except pytest.skip.Exception:
        pass
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {error}")
"""


def test_every_module_of_tests_can_be_imported_where_there_is_no_fork(python):
    assert python(IMPORT_ALL, TESTS, flags=["-W", "ignore"]) == ""


#: Modules of the standard library that only POSIX has.
POSIX_MODULES = {"fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"}


def imported_at_once(path):
    """The modules that a file imports outside of functions, by the first part of their names."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


def test_no_module_of_tests_imports_at_once_what_only_posix_has():
    """Programs that kill processes (chaos_*.py) are for Linux alone."""
    found = {
        path.name: wrong
        for path in pathlib.Path(TESTS).glob("*.py")
        if not path.name.startswith("chaos") and (wrong := POSIX_MODULES & set(imported_at_once(path)))
    }
    assert found == {}
