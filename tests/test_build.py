"""sdist -> wheel -> fresh environment, and two installations that work on one array."""

import pickle
import subprocess
import sys
import tarfile
import textwrap
import venv
import zipfile
from pathlib import Path

import build_tools
import numpy as np
import pytest

import sharedmem

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # compilers may take long


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    build_tools.needs(
        "git",
        "c++",
        "ninja",
        "patchelf",
        modules=["build", "mesonpy", "Cython"],
        files=[build_tools.ROOT / ".git"],
    )
    return build_tools.copy_of_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def sdist(tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdist")
    build_tools.run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", folder, tree)
    (file,) = folder.iterdir()
    return file


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build_tools.pip("wheel", "--no-build-isolation", "--wheel-dir", folder, sdist)
    (file,) = folder.iterdir()
    return file


@pytest.fixture
def fresh(wheel, tmp_path):
    """A function that makes an environment with the wheel and NumPy, and returns its interpreter."""

    def make(name):
        folder = tmp_path / name
        venv.create(folder, with_pip=False)
        python = folder / "bin" / "python"
        build_tools.pip("--python", python, "install", wheel)
        (site,) = (folder / "lib").glob("python*/site-packages")
        lend_numpy(site)
        return python

    return make


def lend_numpy(site):
    """Puts the NumPy of this environment, and nothing else of it, into another one."""
    installed = Path(np.__file__).parents[1]
    for name in ("numpy", "numpy.libs"):
        if (installed / name).exists():
            (site / name).symlink_to(installed / name)


def output(python, code, *args):
    """What a snippet prints in another environment; it must succeed and print nothing else."""
    done = subprocess.run(
        [python, "-I", "-c", textwrap.dedent(code), *args], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def source_files():
    """Files that belong into the installed package, relative to it."""
    package = build_tools.ROOT / "sharedmem_pyx"
    kinds = ("*.py", "*.pyi", "*.pxd", "py.typed")
    found = {p.relative_to(package).as_posix() for kind in kinds for p in package.rglob(kind)}
    found |= {"sharedmem/include/sharedmem_pyx/" + p.name for p in package.rglob("*.hpp")}
    headers = (build_tools.CPP / "include/sharedmem").glob("*.hpp")
    return found | {"sharedmem/include/sharedmem/" + p.name for p in headers}


def test_wheel_has_every_file_of_the_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert source_files() - names == set()
    assert {"sharedmem/libsharedmem.so", "sharedmem/version.py"} <= names
    assert not [name for name in names if "doctest" in name]


def test_sdist_has_what_builds_and_tests_need(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"LICENSE", "README.rst", "cpp/meson.build", "cpp/VERSION", "tests/conftest.py"}
    assert wanted - names == set()


def test_wheel_works_in_a_fresh_environment(fresh):
    code = """
        import pickle, sharedmem, shmarray
        a = sharedmem.full(3, 7)
        print(sharedmem.__version__, sharedmem.__file__, pickle.loads(pickle.dumps(a)).sum())
    """
    python = fresh("venv")
    version, file, total = output(python, code).split()
    assert version == sharedmem.__version__ == (build_tools.CPP / "VERSION").read_text().strip()
    assert Path(file).is_relative_to(python.parents[1])
    assert total == "21"


def test_two_installations_work_on_one_array(fresh):
    a = sharedmem.zeros(1000)
    code = "import pickle, sys; pickle.loads(bytes.fromhex(sys.argv[1]))[:] += 1"
    for name in ("one", "two"):
        output(fresh(name), code, pickle.dumps(a).hex())
    assert (a == 2).all()
