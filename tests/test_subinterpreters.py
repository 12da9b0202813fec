"""Importing in a subinterpreter is refused, first or not, and the main interpreter is not affected."""

import importlib.util

import pytest
from support import check_python

pytestmark = pytest.mark.skipif(
    not any(map(importlib.util.find_spec, ("_interpreters", "_xxsubinterpreters"))),
    reason="this Python has no module that makes subinterpreters",
)

# Defines `refused(statement)`: what a new interpreter says that runs it.
BEGIN = """
import os, sys

if sys.version_info >= (3, 13):
    import _interpreters as interpreters
    def new(kind):
        return interpreters.create(kind)
else:
    import _xxsubinterpreters as interpreters
    def new(kind):
        return interpreters.create(isolated=kind == "isolated")

def refused(statement, kind=sys.argv[1]):
    reading, writing = os.pipe()
    number = new(kind)
    interpreters.run_string(number, f'''
import os
try:
    {statement}
    said = "no error"
except ImportError as error:
    said = str(error)
os.write({writing}, said.encode())
''')
    interpreters.destroy(number)
    os.close(writing)
    with os.fdopen(reading) as file:
        return file.read()

"""

SAYS = "sharedmem works in the main interpreter of a process, not in a subinterpreter"


@pytest.fixture(params=["isolated", "legacy"])
def kind(request):
    return request.param


def run(kind, code):
    return check_python(BEGIN + code, kind).splitlines()


STATEMENTS = [
    "import sharedmem",
    "import sharedmem._creation",
    "from sharedmem import lock",
    "import shmarray",
]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_after_the_main_interpreter(kind, statement):
    code = f"""
import sharedmem
for _ in range(2):
    print(refused("{statement}"))
print(sharedmem.ones(3).sum())
"""
    assert run(kind, code) == [SAYS, SAYS, "3.0"]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_before_the_main_interpreter(kind, statement):
    code = f"""
print(refused("{statement}"))
print(refused("{statement}"))
import sharedmem, shmarray
print(sharedmem.ones(3).sum())
"""
    assert run(kind, code) == [SAYS, SAYS, "3.0"]


def test_a_subinterpreter_leaves_no_arena(kind):
    code = """
print(refused("import sharedmem"), os.environ.get("SHAREDMEM_ARENA"))
"""
    assert check_python(BEGIN + code, kind, related=False) == f"{SAYS} None"
