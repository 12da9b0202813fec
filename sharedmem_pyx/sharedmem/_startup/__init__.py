"""How modules of this package are found, and what is done to other modules as soon as they are imported.

It is imported before anything else. All compiled modules of this package lie in one shared object, that of
`sharedmem._core`: importing that module refuses subinterpreters, and the others are found in it by name.

The loader and the finders below do not derive from the classes of importlib.abc, which the import system does
not ask for: importing that module takes longer than importing all of this package. Each file that is imported
takes a tenth of a millisecond, too, so this is one file, and `__future__` is not imported by what every
program needs.
"""

import os
import sys
from _thread import RLock  # threading's, which loads more
from collections.abc import Callable, Sequence
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

from sharedmem import _core

if TYPE_CHECKING:
    from importlib.abc import Loader, MetaPathFinder
    from typing import Any
else:
    Loader = MetaPathFinder = object


class _Compiled(MetaPathFinder):
    """Finds the compiled modules. `ExtensionFileLoader` calls ``PyInit_`` with the name's last part."""

    def find_spec(
        self, name: str, path: "Sequence[str] | None", target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if name not in _core.modules:
            return None
        file = _core.__file__
        spec = ModuleSpec(name, ExtensionFileLoader(name, file), origin=file)
        spec.has_location = True  # so that the module gets its __file__
        return spec


sys.meta_path.insert(0, _Compiled())

#: Held while code imports a module of this package in a function, when it is first needed, and while this
#: process forks. A child has only the thread that forked: in the middle of another thread's import it would
#: wait for that thread's lock of the module for ever. Where an import of another package is under way, its
#: lock is held already, and this one is not taken: two threads could wait for each other.
import_lock = RLock()


def at_fork(**handlers: Callable[[], object]) -> None:
    """Call `os.register_at_fork`, where there is fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(**handlers)


def free_in_child(lock: "Any") -> None:
    """Free a lock of `threading` in forked children, where the thread that holds it does not exist."""
    at_fork(after_in_child=lambda: lock._at_fork_reinit())  # without fork there is no such method


at_fork(before=import_lock.acquire, after_in_parent=import_lock.release, after_in_child=import_lock.release)

_Action = Callable[[ModuleType], None]


class _Loader(Loader):
    """Runs a module's own loader, then actions on the module."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> "Any":
        if name == "loader":  # of an object that is being copied
            raise AttributeError(name)
        return getattr(self.loader, name)  # get_code, get_source and the like, which runpy and others call

    def create_module(self, spec: ModuleSpec) -> "ModuleType | None":
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        module.__loader__ = self.loader
        self.loader.exec_module(module)
        for action in _finder.awaited.pop(module.__name__, ()):
            action(module)


class _Finder(MetaPathFinder):
    """Finds awaited modules by the other finders, and wraps their loaders.

    A module is awaited until it has been executed, since a program may call `importlib.util.find_spec`
    without importing the module.
    """

    def __init__(self) -> None:
        self.awaited: dict[str, list[_Action]] = {}
        # Modules that the other finders are searching. One thread at a time, by the lock of the import
        # system.
        self.asking: set[str] = set()

    def find_spec(
        self, name: str, path: "Sequence[str] | None", target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if name not in self.awaited or name in self.asking:  # another finder may call this one
            return None
        self.asking.add(name)
        try:
            for other in list(sys.meta_path):
                if hasattr(other, "find_spec"):
                    spec = other.find_spec(name, path, target)
                    if spec is not None:
                        if spec.loader is not None:
                            spec.loader = _Loader(spec.loader)
                        return spec
            return None
        finally:
            self.asking.discard(name)


_finder = _Finder()


def when_imported(name: str, action: _Action) -> None:
    """Call ``action(module)`` once a module has been imported; at once if it is there already.

    Several actions on one module run in the order of the calls.

    Parameters
    ----------
    name : str
        The module's full name.
    action : callable
        Takes the module.
    """
    module = sys.modules.get(name)
    if module is not None:
        action(module)
        return
    _finder.awaited.setdefault(name, []).append(action)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
