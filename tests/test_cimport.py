"""Cython code that uses the library's declarations: a small extension, built and run."""

import sys

import build_tools
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # compilers may take long

MODULE = '''
# distutils: language = c++
cimport sharedmem
from libc.stdint cimport uintptr_t
from sharedmem.libsharedmem.arena cimport allocation
from sharedmem.libsharedmem.home cimport arena_of, home, release
from sharedmem.lock cimport RLock


def allocate(size_t nbytes, size_t alignment):
    """Whether a block of the arena is aligned, large enough and known."""
    cdef allocation a = home().allocate(nbytes, alignment)
    found = <uintptr_t>a.data % alignment == 0 and a.bytes >= nbytes and arena_of(a.data) == a.ref.home
    release(a.ref)
    return found


def total(const double[:, ::1] a):
    cdef double s = 0
    cdef Py_ssize_t i, j
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            s += a[i, j]
    return s


def fill(double[:] a, double value):
    cdef Py_ssize_t i
    for i in range(a.shape[0]):
        a[i] = value


def is_lock(object thing):
    return isinstance(thing, RLock)
'''

SETUP = """
from Cython.Build import cythonize
from setuptools import Extension, setup

import sharedmem

extension = Extension(
    "consumer",
    ["consumer.pyx"],
    include_dirs=sharedmem.get_include(),
    library_dirs=[sharedmem.get_library_dir()],
    {rpath}
    libraries=["sharedmem"],
    extra_compile_args=["-std=c++20"],
)
setup(
    name="consumer",
    ext_modules=cythonize([extension], include_path=[sharedmem.get_cython_include()], language_level=3),
)
"""

PROGRAM = """
import sharedmem, consumer

for nbytes, alignment in [(1, 64), (1000, 4096), (3 << 20, 2 << 20)]:
    assert consumer.allocate(nbytes, alignment)
try:
    consumer.allocate(1, 3)
except ValueError as error:
    assert "3" in str(error) or "align" in str(error), error
else:
    raise AssertionError("an alignment of 3")
try:
    consumer.allocate(2**60, 64)
except MemoryError as error:
    assert str(error)
else:
    raise AssertionError("2**60 bytes")

a = sharedmem.ones((3, 4))
consumer.fill(a[1], 5)
assert consumer.total(a) == 28
a.flags.writeable = False
assert consumer.total(a) == 28
try:
    consumer.fill(a[0], 1)
except ValueError:
    pass
else:
    raise AssertionError("a read-only array was written to")
assert consumer.is_lock(sharedmem.Array("i", 3).get_lock())

# One library is loaded, with one state.
with open("/proc/self/maps") as maps:
    libraries = {line.split()[-1] for line in maps if "libsharedmem.so" in line}
assert len(libraries) == 1, libraries
"""


@pytest.mark.parametrize("rpath", [True, False], ids=["rpath", "import first"])
def test_a_setuptools_extension(tmp_path, rpath):
    """Without a path of its own it finds the library that `import sharedmem` has loaded."""
    build_tools.needs("c++", modules=["Cython", "setuptools"])
    line = "runtime_library_dirs=[sharedmem.get_library_dir()]," if rpath else ""
    (tmp_path / "consumer.pyx").write_text(MODULE)
    (tmp_path / "setup.py").write_text(SETUP.format(rpath=line))
    build_tools.run(sys.executable, "setup.py", "build_ext", "--inplace", cwd=tmp_path)
    program = (
        PROGRAM if not rpath else PROGRAM.replace("import sharedmem, consumer", "import consumer, sharedmem")
    )
    (tmp_path / "program.py").write_text(program)
    build_tools.run(sys.executable, "-X", "dev", "program.py", cwd=tmp_path)
