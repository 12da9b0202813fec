"""Programs frozen by PyInstaller and the like, which find the imports of Python code, not of compiled one."""

import ast
import pathlib
import subprocess
import sys
import sysconfig

import pytest
from support import TIMEOUT, check_python, environment

import sharedmem

PROGRAM = """
import multiprocessing
import pickle
import sys
import sysconfig

import sharedmem


def work(a, queue):
    a += 1
    queue.put((sharedmem.full(1000, 5.0), sys.frozen))


def main():
    a = sharedmem.zeros(1000)
    for method in ("spawn", "fork", "forkserver"):
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        process = context.Process(target=work, args=(a, queue))
        process.start()
        b, frozen = queue.get(timeout=60)
        process.join()
        print(method, process.exitcode, a[0], b.sum(), frozen)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        print([c[0].item() for c in pool.map(sharedmem.copy, [a, a])])
    print(sharedmem.Value("i", 3).value, sharedmem.shmem_as_ndarray(sharedmem.RawArray("d", 3)).shape)
    print(sharedmem.shared_zeros(3).sum(), bool(sharedmem.get_include()))
    data = pickle.dumps(a)
    del a
    try:
        pickle.loads(data)
    except sharedmem.StaleHandleError:
        print("stale")
    try:
        sharedmem.zeros(3, object)
    except TypeError:
        print("refused")


if __name__ == "__main__":
    multiprocessing.freeze_support()
    main()
"""

EXPECTED = """\
spawn 0 1.0 5000.0 True
fork 0 2.0 5000.0 True
forkserver 0 3.0 5000.0 True
[3.0, 3.0]
3 (3,)
0.0 True
stale
refused
"""


@pytest.mark.parametrize("kind", ["--onedir", pytest.param("--onefile", marks=pytest.mark.slow)])
def test_a_frozen_program(tmp_path, kind):
    pytest.importorskip("PyInstaller")
    if not (sysconfig.get_config_var("Py_ENABLE_SHARED") or sysconfig.get_config_var("PYTHONFRAMEWORK")):
        pytest.skip("PyInstaller needs a Python that is a shared library")
    (tmp_path / "program.py").write_text(PROGRAM)
    build = [sys.executable, "-m", "PyInstaller", "--log-level=WARN", kind, "program.py"]
    env = environment(PYINSTALLER_CONFIG_DIR=tmp_path)
    built = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True, env=env)
    assert built.returncode == 0, built.stderr
    found = tmp_path / "dist" / "program"
    program = found / "program" if kind == "--onedir" else found
    # Without the environment of the tests, which may name their arena and a path to Python.
    ran = subprocess.run(
        [program], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}, timeout=TIMEOUT
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == (EXPECTED, "", 0)


def plain_imports():
    """The package's modules that one comes to from `import sharedmem` by the imports in Python code."""
    folder = pathlib.Path(sharedmem.__file__).parents[1]
    found, ahead = set(), {"sharedmem"}
    while ahead:
        name = ahead.pop()
        found.add(name)
        place = folder.joinpath(*name.split("."))
        path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        named = set()
        for node in ast.walk(ast.parse(path.read_text())) if path.exists() else ():
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                named |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        for module in named:
            parts = module.split(".")
            if parts[0] == "sharedmem":
                ahead |= {".".join(parts[: i + 1]) for i in range(len(parts))} - found
    return found


def test_every_module_is_imported_by_python_code():
    code = """
    import sys, sharedmem
    for name in sharedmem.__all__:
        getattr(sharedmem, name)
    hasattr(sharedmem.ones(3), "x"), hasattr(sys.modules["sharedmem.array"], "x")
    print(*(name for name in sys.modules if name.partition(".")[0] == "sharedmem"))
    """
    assert set(check_python(code).split()) - plain_imports() == set()
