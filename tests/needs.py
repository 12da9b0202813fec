"""What a test needs that not every system has, by what is written in it.

A test's own text is read, and that of the functions, fixtures and constants of its module that it names, and
so on. What the text does not tell is said by a marker at the test, or by `pytestmark`. Markers are listed in
pyproject.toml.
"""

import ast
import functools
import os
import re
import signal
import sys

#: By marker: whether it is here, and what is missing elsewhere.
NEEDS = {
    "needs_fork": (hasattr(os, "fork"), "needs fork"),
    "needs_proc": (os.path.isdir("/proc/self"), "needs /proc"),
    "needs_signals": (hasattr(signal, "pthread_kill"), "needs signals of POSIX"),
    "needs_posix": (os.name == "posix", "needs calls of POSIX"),
    "needs_linux": (sys.platform == "linux", "tests what is Linux's"),
}
MISSING = {marker: reason for marker, (here, reason) in NEEDS.items() if not here}

_WORDS = {
    "needs_fork": r"\bos\.fork\b|\bin_fork\b|\breap\(|\bfork_two\w*|['\"]fork(server)?['\"]",
    "needs_proc": (
        r"/proc/|/dev/shm|\bstate_of\(|\bsegments\(|\bmarked\(|\bneeds_memory\b|\bsupport\.memory\(|"
        r"\bprivate_memory\(|\bresident_bytes\(\)"
    ),
    "needs_signals": r"\bSIG[A-Z]{3,}\b|\bsignal\.\w+\(|\.signal\(|\bos\.kill(pg)?\b",
    "needs_posix": (
        r"\bresource\.|\bAF_UNIX\b|\bos\.(dup2|set\w*[ug]id|get\w*uid|exec\w+|sysconf|mkfifo)\b|\bunshare\b|"
        r"\b(prefix|shell)=|\bpass_fds\b|\bselect\.select\b|\bsocketpair\b|\bCDLL\(None"
    ),
    "needs_linux": r"['\"]sysv['\"]|\bmemfd|libsharedmem\.so",
}


@functools.cache
def _parts(path):
    """{name: (its text, the names in it)} of what a module defines. Decorators do not count: see `of`."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
            within = [*node.body, *([node.args] if isinstance(node, ast.FunctionDef) else [])]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            within = [node.value]
        else:
            continue
        named = set()
        for part in within:
            for inner in ast.walk(part):
                named.add(getattr(inner, "id", None) or getattr(inner, "arg", None))
        said = "\n".join(ast.get_source_segment(text, part) or "" for part in within)
        found.update(dict.fromkeys(names, (said, named)))
    return found


def of(item):
    """The markers of a pytest item, as names: its own, and those that its text or its parameters require."""
    needed = {marker for marker in NEEDS if item.get_closest_marker(marker) is not None}
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    if any(isinstance(value, str) and value in ("fork", "forkserver") for value in parameters):
        needed.add("needs_fork")
    parts, seen, to_read = _parts(str(item.path)), set(), {item.function.__name__, *item.fixturenames}
    while to_read:
        name = to_read.pop()
        if name in seen or name not in parts:
            continue
        seen.add(name)
        text, named = parts[name]
        needed.update(marker for marker, words in _WORDS.items() if re.search(words, text))
        to_read |= named
    return needed
