"""Tools for tests of `get_or_create`: programs that build, and programs that wait for them."""

import contextlib

from naming import program

import sharedmem

#: A builder that reports when it builds, and continues when it receives a line.
BUILDER = """
def build():
    print("builds", flush=True)
    sys.stdin.readline()
    return np.full(1000, 7.0)
a = sharedmem.get_or_create("x", build)
print(a[0], flush=True)
sys.stdin.read()
"""

#: Another one, that waits and does not build unless it must.
WAITER = """
print("asks", flush=True)
a = sharedmem.get_or_create("x", lambda: print("builds too", flush=True) or np.full(1000, 8.0))
print(a[0], flush=True)
sys.stdin.read()
"""


def go_on(process):
    process.stdin.write("\n")
    process.stdin.flush()


@contextlib.contextmanager
def programs(code, count):
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(program(code)) for _ in range(count)]


def states(name):
    return [info.state for info in sharedmem.names() if info.name == name]
