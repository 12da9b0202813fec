"""Every program that the documentation shows, run as its reader would."""

import importlib.util
import shutil
import sys

import build_tools
import pytest
import support

EXAMPLES = build_tools.ROOT / "doc" / "examples"
PROGRAMS = sorted(EXAMPLES.glob("*.py"))
MIGRATIONS = sorted(EXAMPLES.glob("migration/*.py"))

# What a program compares with, if it is not there with the tests' other needs.
PEERS = {"from_sharedarray.py": "SharedArray", "from_torch.py": "torch", "from_joblib.py": "joblib"}


def run_example(program, start_method):
    """What the program prints with a start method; it must succeed without a word on stderr."""
    folder = program.parent
    code = f"""
        import multiprocessing, runpy, sys
        multiprocessing.set_start_method({start_method!r})
        sys.path.insert(0, {str(folder)!r})
        import {program.stem}
        {program.stem}.main()
    """
    return support.check_python(code)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_programs(program, start_method):
    assert run_example(program, start_method) == program.with_suffix(".out").read_text().strip()


@pytest.mark.parametrize("program", MIGRATIONS, ids=lambda program: program.stem)
def test_before_and_after_have_one_result(program):
    if program.name in PEERS:
        build_tools.needs(modules=[PEERS[program.name]])
    words = build_tools.run(sys.executable, program).split()
    assert words
    if program.name != "from_2009.py":
        assert len(words) >= 2
        assert len(set(words)) == 1


def test_a_fixture_of_all_workers():
    workers = []
    if importlib.util.find_spec("xdist") is not None:
        workers = ["-n", "2"]
    printed = build_tools.run(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *workers, EXAMPLES / "xdist_fixture"
    )
    assert "51 passed" in printed


def check_kernel(printed):
    assert printed.splitlines()[-2:] == ["in shared memory: True False", "as NumPy computes it: True"]


@pytest.fixture
def kernel(tmp_path):
    """A copy of the folders of the Cython kernel."""
    build_tools.needs("c++", modules=["Cython"])
    for name in ("prange_setuptools", "prange_meson"):
        shutil.copytree(EXAMPLES / name, tmp_path / name)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_cython_kernel_built_by_setuptools(kernel):
    build_tools.needs(modules=["setuptools"])
    folder = kernel / "prange_setuptools"
    build_tools.run(sys.executable, "setup.py", "build_ext", "--inplace", cwd=folder)
    check_kernel(build_tools.run(sys.executable, "run.py", cwd=folder))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_cython_kernel_built_by_meson(kernel):
    build_tools.needs("ninja", modules=["mesonbuild"])
    build = kernel / "build"
    build_tools.meson("setup", build, kernel / "prange_meson")
    build_tools.meson("compile", "-C", build)
    env = build_tools.environment(PYTHONPATH=str(build))
    check_kernel(build_tools.run(sys.executable, kernel / "prange_setuptools" / "run.py", env=env))
