"""Cython code that uses atomic operations and the futex, without the GIL: an extension, built and run."""

import sys

import build_tools
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # compilers may take long

MODULE = """
# distutils: language = c++
cimport cython
cimport sharedmem.atomics as atomics
from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t, uint8_t
from sharedmem.libsharedmem.futex cimport timed_out, wait_on
from sharedmem.libsharedmem.robust_mutex cimport nanoseconds


@cython.boundscheck(False)
@cython.wraparound(False)
def count(const int64_t[:] values, int64_t[:] counts, double[:] total):
    cdef Py_ssize_t i
    with nogil:
        for i in range(values.shape[0]):
            atomics.add(&counts[values[i]], 1)
            atomics.add(&total[0], values[i])


def each(int32_t[:] a):
    cdef int32_t* at = &a[0]
    cdef list found = []
    atomics.store(at, 12)
    found.append(atomics.load(at))
    found.append(atomics.exchange(at, 10))
    found.append(atomics.compare_exchange(at, 10, 11))
    found.append(atomics.compare_exchange(at, 10, 99))
    found.append(atomics.sub(at, 4))
    found.append(atomics.and_(at, 6))
    found.append(atomics.or_(at, 1))
    found.append(atomics.xor(at, 2))
    found.append(atomics.load(at))
    return found


def sleep(int32_t[:] a, int32_t value, double seconds):
    cdef bint other
    with nogil:
        other = atomics.wait(&a[0], value, seconds)
    return other


def sleep_for_ever(int32_t[:] a, int32_t value):
    with nogil:
        atomics.wait(&a[0], value, INFINITY)


def wake(int32_t[:] a):
    return atomics.notify(&a[0], 1)


def futex(int32_t[:] a):
    return wait_on(<const unsigned int*>&a[0], a[0], nanoseconds(1000)) == timed_out


def askew(uint8_t[:] a):
    return atomics.wait(<const int32_t*>&a[1], 0, 1)
"""

SETUP = """
from Cython.Build import cythonize
from setuptools import Extension, setup

import sharedmem

extension = Extension(
    "consumer",
    ["consumer.pyx"],
    include_dirs=sharedmem.get_include(),
    library_dirs=[sharedmem.get_library_dir()],
    runtime_library_dirs=[sharedmem.get_library_dir()],
    libraries=["sharedmem"],
    extra_compile_args=["-std=c++20", "-Wall", "-Werror", "-Wno-unused-function"],
)
setup(
    name="consumer",
    ext_modules=cythonize([extension], include_path=[sharedmem.get_cython_include()], language_level=3),
)
"""

PROGRAM = """
import threading
import consumer, sharedmem
import numpy as np

values = sharedmem.array(np.arange(200_000) % 4)
counts, total = sharedmem.zeros(4, "i8"), sharedmem.zeros(1)
threads = [threading.Thread(target=consumer.count, args=(values, counts, total)) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert counts.tolist() == [150_000] * 4, counts
assert total[0] == 3 * values.sum(), total

a = sharedmem.zeros(2, "i4")
assert consumer.each(a) == [12, 12, 10, 11, 11, 7, 6, 7, 5], consumer.each(a)
assert consumer.sleep(a, 4, 0) and not consumer.sleep(a, 5, 0.01) and not consumer.sleep(a, 5, -1)
assert consumer.futex(a) and consumer.wake(a) == 0
sleeper = threading.Thread(target=consumer.sleep_for_ever, args=(a, 5))
sleeper.start()
while consumer.wake(a) == 0:
    pass
assert sleeper.is_alive()
sharedmem.atomics.store(a, 0, 6)
while sleeper.is_alive():
    sharedmem.atomics.notify(a, 0)
sleeper.join()
try:
    consumer.askew(sharedmem.zeros(8, "u1"))
except ValueError as error:
    assert "aligned" in str(error)
else:
    raise AssertionError("a word that is not aligned")
"""


def test_atomics_in_an_extension(tmp_path):
    build_tools.needs("c++", modules=["Cython", "setuptools"])
    (tmp_path / "consumer.pyx").write_text(MODULE)
    (tmp_path / "setup.py").write_text(SETUP)
    build_tools.run(sys.executable, "setup.py", "build_ext", "--inplace", cwd=tmp_path)
    (tmp_path / "program.py").write_text(PROGRAM)
    build_tools.run(sys.executable, "-X", "dev", "program.py", cwd=tmp_path)
