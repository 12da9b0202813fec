"""Builds kernel.pyx beside it: python setup.py build_ext --inplace."""

from Cython.Build import cythonize
from setuptools import Extension, setup

import sharedmem

kernel = Extension(
    "kernel",
    ["kernel.pyx"],
    include_dirs=sharedmem.get_include(),
    library_dirs=[sharedmem.get_library_dir()],
    runtime_library_dirs=[sharedmem.get_library_dir()],
    libraries=["sharedmem"],
    extra_compile_args=["-std=c++20", "-fopenmp"],
    extra_link_args=["-fopenmp"],
)

setup(
    name="kernel",
    ext_modules=cythonize([kernel], include_path=[sharedmem.get_cython_include()], language_level=3),
)
