"""numpydoc's checks on the docstring of every public name, those made by Cython too."""

import inspect
import sys

from numpydoc.validate import validate

import sharedmem
import sharedmem.ray
import sharedmem.torch
import shmarray

# Form, a summary, every parameter with its type and text, what is returned. Not asked for: "See Also",
# extended summaries and examples everywhere.
CHECKS = {
    *("GL01", "GL02", "GL03", "GL05", "GL06", "GL07", "GL08"),
    *("SS01", "SS02", "SS03", "SS04"),
    *("PR01", "PR02", "PR03", "PR04", "PR05", "PR06", "PR07", "PR10"),
    *("RT01", "RT02", "RT03", "YD01"),
}


# Findings that are none: SharedArray inherits the signature of ndarray, but is not made by calling it.
ACCEPTED = {("sharedmem.SharedArray", "PR01")}


def public_names():
    """Dotted names of what users call: the functions and classes of both modules, and methods."""
    for module in (sharedmem, sharedmem.ray, sharedmem.torch, shmarray):
        yield module.__name__
        for name in module.__all__:
            thing = getattr(module, name)
            if not (inspect.isclass(thing) or inspect.isroutine(thing)):
                continue
            yield f"{module.__name__}.{name}"
            if inspect.isclass(thing) and not issubclass(thing, BaseException):
                yield from methods(f"{module.__name__}.{name}", thing)


def methods(prefix, cls):
    """Dotted names of the methods that a class itself defines, without special ones."""
    for name, member in vars(cls).items():
        if inspect.isroutine(member) and not name.startswith("_"):
            yield f"{prefix}.{name}"


def main():
    names = sorted(set(public_names()))
    count = 0
    for name in names:
        for code, message in validate(name)["errors"]:
            if code in CHECKS and (name, code) not in ACCEPTED:
                print(f"{name}: {code} {message}")
                count += 1
    print(f"{len(names)} docstrings, {count} findings")
    return count != 0


if __name__ == "__main__":
    sys.exit(main())
