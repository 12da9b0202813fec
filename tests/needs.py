"""What a test needs that not every system has, by what is written in it.

A test's own text is read, and that of the functions, fixtures and constants that it names, in its module and
in others of its folder, and so on. A function of another module that asks which system it is on works on all
systems, whatever else is written in it. What the text does not tell is said by a marker at the test, or by
`pytestmark`; by `needs_nothing` it runs everywhere, whatever else would leave it out. Markers are listed in
pyproject.toml.
"""

import ast
import ctypes
import functools
import os
import pathlib
import re
import signal
import sys
import types
from typing import NamedTuple


def _wine():
    """The number of Wine's main version, None if this is not Wine."""
    version = getattr(ctypes.WinDLL("ntdll"), "wine_get_version", None) if sys.platform == "win32" else None
    if version is None:
        return None
    version.restype = ctypes.c_char_p
    return int(version().split(b".")[0])


WINE = _wine()


def _has_proc():
    """By Wine, programs see the /proc of Linux, which tells nothing of them."""
    return sys.platform != "win32" and os.path.isdir("/proc/self")


#: By marker: whether it is here, and what is missing elsewhere.
NEEDS = {
    "needs_fork": (hasattr(os, "fork"), "needs fork"),
    "needs_proc": (_has_proc(), "needs /proc"),
    "needs_signals": (hasattr(signal, "pthread_kill"), "needs signals of POSIX"),
    "needs_posix": (os.name == "posix", "needs calls of POSIX"),
    "needs_linux": (sys.platform == "linux", "tests what is Linux's"),
    "needs_memory_limit": (WINE is None, "takes memory until the system refuses, which Wine never does"),
    "needs_executor": (WINE is None or WINE >= 10, "starts a ProcessPoolExecutor, in which Wine 8 hangs"),
}
MISSING = {marker: reason for marker, (here, reason) in NEEDS.items() if not here}

_WORDS = {
    "needs_fork": r"\bos\.fork\b|(?<![!=]= )['\"]fork(server)?['\"]",  # to compare with it needs none
    "needs_proc": r"/proc/|['\"]/proc['\"]|/dev/shm|\bneeds_memory\b",
    "needs_signals": r"\bSIG[A-Z]{3,}\b|\bsignal\.\w+\(|\.signal\(|\bos\.kill(pg)?\b",
    "needs_posix": (
        r"\bresource\.|\bAF_UNIX\b|\bos\.(dup2|set\w*[ug]id|get\w*uid|exec\w+|sysconf|mkfifo)\b|\bunshare\b|"
        r"\b(prefix|shell)=|\b(pass_fds|preexec_fn)\b|\bselect\.select\b|\bCDLL\(None|\bst_blocks\b|\bsymlink(_to)?\("
    ),
    "needs_executor": r"\bProcessPoolExecutor\(",
    "needs_linux": r"['\"]sysv['\"]|\bmemfd|libsharedmem\.so",
}

#: How a function says that it asks which system it is on.
_ASKS = re.compile(r"\bsys\.platform\b|\bSTART_METHODS\b|\bget_all_start_methods\b")


class _Part(NamedTuple):
    """What a module defines under a name: its text, and the (file, name) of all that it may use."""

    text: str
    used: frozenset


class _Module(NamedTuple):
    parts: dict
    imported: dict  # {name here: (file, name there)} of what comes from modules of the same folder


@functools.cache
def _modules(folder):
    """{name: file} of the modules in a folder."""
    return {file.stem: str(file) for file in pathlib.Path(folder).glob("*.py")}


def _imported(tree, others):
    return {
        alias.asname or alias.name: (others[node.module], alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module in others
        for alias in node.names
    }


@functools.cache
def _module(path):
    """What a module of tests defines and imports. Decorators do not count: see `of`."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    others = _modules(os.path.dirname(path))
    by_attribute = re.compile(rf"\b({'|'.join(others)})\.(\w+)")  # in programs, too, which are strings
    tree = ast.parse(text)
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
            within = [*node.body, *([node.args] if isinstance(node, ast.FunctionDef) else [])]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            within = [node.value]
        else:
            continue
        said = "\n".join(ast.get_source_segment(text, part) or "" for part in within)
        used = {(others[module], name) for module, name in by_attribute.findall(said)}
        for part in within:
            for inner in ast.walk(part):
                used.add((path, getattr(inner, "id", None) or getattr(inner, "arg", None)))
        found.update(dict.fromkeys(names, _Part(said, frozenset(used))))
    return _Module(found, _imported(tree, others))


def _named_in(text):
    return {marker for marker, words in _WORDS.items() if re.search(words, text)}


def of(item):
    """The markers of a pytest item, as names: its own, and those that its text or its parameters require."""
    if item.get_closest_marker("needs_nothing") is not None:
        return set()
    needed = {marker for marker in NEEDS if item.get_closest_marker(marker) is not None}
    own = str(item.path)
    seen, to_read = set(), {(own, name) for name in (item.function.__name__, *item.fixturenames)}
    for value in item.callspec.params.values() if hasattr(item, "callspec") else ():
        if isinstance(value, str):
            needed |= _named_in(repr(value))
        elif isinstance(value, types.FunctionType):
            to_read.add((value.__code__.co_filename, value.__name__))
    while to_read:
        path, name = here = to_read.pop()
        if here in seen:
            continue
        seen.add(here)
        if os.path.dirname(path) != os.path.dirname(own):
            continue
        module = _module(path)
        if name in module.imported:
            to_read.add(module.imported[name])
        part = module.parts.get(name)
        if part is None or (path != own and _ASKS.search(part.text)):
            continue
        needed |= _named_in(part.text)
        to_read |= part.used
    return needed
