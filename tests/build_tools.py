"""Tools for tests that build something: the source tree, and programs that may be missing."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CPP = ROOT / "cpp"


def environment(**changes):
    """Environment in which the tools beside this interpreter are found first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, **changes}


def needs(*programs, modules=(), files=()):
    """Skips the test, naming what is missing of programs, Python modules and files."""
    path = environment()["PATH"]
    missing = [name for name in programs if shutil.which(name, path=path) is None]
    missing += [name for name in modules if importlib.util.find_spec(name) is None]
    missing += [str(name) for name in [CPP, *files] if not Path(name).exists()]
    if missing:
        pytest.skip("missing: " + ", ".join(missing))


def run(*command, cwd=None, env=None):
    """Output of a command that must succeed; if it does not, the test fails with its whole output."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=env or environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode != 0:
        pytest.fail(f"{command} ended with {done.returncode}:\n{done.stdout}", pytrace=False)
    return done.stdout


def meson(*args, env=None):
    """Runs the Meson of this interpreter."""
    return run(sys.executable, "-m", "mesonbuild.mesonmain", *args, env=env)


def pip(*args):
    """Runs the pip of this interpreter, without an index."""
    return run(sys.executable, "-m", "pip", *args, "--no-deps", "--no-index")


def copy_of_tree(to):
    """A git repository in the folder `to` with every file of the tree that git does not ignore.

    An sdist is made from what is committed; a copy lets uncommitted changes be tried as well.
    """
    listing = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).is_file():
            target = to / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@localhost")
    run(*git, "init", "--quiet", cwd=to)
    run(*git, "add", "--all", cwd=to)
    run(*git, "commit", "--quiet", "--message", "tree", cwd=to)
    return to
