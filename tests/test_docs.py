"""What the documentation shows: its programs, its sessions, and the examples in docstrings."""

import doctest
import inspect
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import build_tools
import numpy as np
import pytest
import support
from naming import own_names  # noqa: F401

import sharedmem
import sharedmem._legacy
import shmarray

ROOT = Path(__file__).parents[1]
DOC = ROOT / "doc"

if not DOC.is_dir():
    pytest.skip("the documentation's source is not here", allow_module_level=True)

PROGRAMS = sorted(path.stem for path in DOC.glob("examples/*.out"))
PAGES = sorted(
    path for path in [*DOC.glob("*.rst"), *DOC.glob("tutorials/*.rst")] if ">>> " in path.read_text()
)


def printed_by(program, folder):
    """Output of a program that must succeed and print nothing on stderr, in a process tree of its own."""
    done = subprocess.run(
        [sys.executable, program],
        cwd=folder,
        env=support.environment(related=False),
        capture_output=True,
        text=True,
        timeout=support.TIMEOUT,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def examples_in_docstrings():
    """Doctests of the public names of both modules."""
    finder = doctest.DocTestFinder(recurse=False)
    for module in (sharedmem, shmarray):
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isroutine(thing) or inspect.isclass(thing):
                found = finder.find(thing, f"{module.__name__}.{name}", module=False, globs={})
                yield from (test for test in found if test.examples)


def check(test, **names):
    test.globs.update(names)
    said = []
    doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert not said, "".join(said)


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name, tmp_path):
    program = DOC / "examples" / f"{name}.py"
    assert printed_by(program, tmp_path) == program.with_suffix(".out").read_text()


def test_cpp_program(tmp_path):
    build_tools.needs("c++")
    library = sharedmem.get_library_dir()
    options = [
        *(f"-I{folder}" for folder in sharedmem.get_include()),
        f"-L{library}",
        f"-Wl,-rpath,{library}",
    ]
    source, program = DOC / "examples" / "cpp" / "main.cpp", tmp_path / "program"
    build_tools.run("c++", "-std=c++20", source, *options, "-lsharedmem", "-o", program)
    assert build_tools.run(program) == "7\n"


def test_program_in_readme(tmp_path):
    readme = (ROOT / "README.rst").read_text()
    code, output = re.search(
        r"\.\. code-block:: python\n\n((?:    .*\n|\n)+)prints ``(.+?)``", readme
    ).groups()
    program = tmp_path / "program.py"
    program.write_text(inspect.cleandoc(code))
    assert printed_by(program, tmp_path) == f"{output}\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_session(page):
    check(doctest.DocTestParser().get_doctest(page.read_text(), {}, page.name, str(page), 0))


@pytest.mark.parametrize("example", list(examples_in_docstrings()), ids=lambda example: example.name)
def test_docstring(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(example, sharedmem=sharedmem, np=np, pickle=pickle, a=sharedmem.ones(3))


def test_shown_files_exist():
    shown = [
        (page, name)
        for page in DOC.rglob("*.rst")
        for name in re.findall(r"(?:literalinclude|graphviz):: (\S+)", page.read_text())
    ]
    assert shown
    assert not [(page.name, name) for page, name in shown if not (page.parent / name).is_file()]


def test_every_program_is_tested():
    """A program of doc/examples has its output beside it, unless another test names it."""
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    programs = {path.stem for path in DOC.glob("examples/*.py")} - set(PROGRAMS)
    assert not {name for name in programs if name not in tests}


def test_scripts_that_pages_name_can_be_run():
    pages = [ROOT / "README.rst", *DOC.glob("*.rst"), *DOC.glob("*.inc")]
    text = "".join(page.read_text() for page in pages)
    named = {ROOT / name for name in re.findall(r"\.ci/(?:matrix/)?[\w.-]*\w", text)}
    assert not [path.name for path in named if not path.exists()]
    scripts = [path for path in named if path.is_file() and not path.suffix]
    assert len(scripts) > 10
    assert not [path.name for path in scripts if not os.access(path, os.X_OK)]


def test_no_script_defines_a_function_twice():
    """The shell takes the last one for both, without a word."""
    scripts = [path for path in ROOT.glob(".ci/**/*") if path.is_file() and path.suffix in ("", ".sh")]
    assert len(scripts) > 10
    for path in scripts:
        names = re.findall(r"^(\w+)\(\) ", path.read_text(), flags=re.M)
        assert len(names) == len(set(names)), path.name


def listed_in_api():
    """Dotted names in the tables of the Python page, and what its text names."""
    found, module = set(), None
    text = (DOC / "api.rst").read_text()
    for line in text.splitlines():
        if line.startswith(".. currentmodule:: "):
            module = line.split()[-1]
        elif re.fullmatch(r" {3}[A-Za-z_][\w.]*", line):
            found.add(f"{module}.{line.strip()}")
    return found, set(re.findall(r"``(\w+)``", text))


@pytest.mark.parametrize("module", [sharedmem, shmarray], ids=["sharedmem", "shmarray"])
def test_every_python_name_is_on_its_page(module):
    tables, text = listed_in_api()
    unlisted = {name for name in module.__all__ if f"{module.__name__}.{name}" not in tables}
    assert unlisted <= text & {"__version__", *sharedmem._legacy.__all__}


def test_every_header_is_on_its_page():
    page = (DOC / "cpp.rst").read_text()
    headers = {path.name for path in ROOT.glob("cpp/include/sharedmem/*.hpp")} - {"export.hpp"}
    assert headers
    assert not {name for name in headers if f".. doxygenfile:: {name}\n" not in page}


def test_every_cython_declaration_is_on_its_page():
    page = (DOC / "cython.rst").read_text()
    folder = ROOT / "sharedmem_pyx"
    files = [path.relative_to(folder) for path in folder.rglob("*.pxd") if path.stem != "__init__"]
    assert files
    assert not {path for path in files if f"``{'.'.join(path.with_suffix('').parts)}``" not in page}
