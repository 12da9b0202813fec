"""How modules of this package are found, and other libraries' modules awaited: `sharedmem._startup`."""

import importlib
import importlib.util
import runpy
import sys

import pytest
from support import check_python

from sharedmem import _core, _startup


@pytest.fixture
def awaited(tmp_path, monkeypatch):
    """Makes a module of some text and awaits it; what the action was called with, in a list."""
    monkeypatch.syspath_prepend(tmp_path)
    names = []

    def make(name, text=""):
        (tmp_path / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        seen = []
        _startup.when_imported(name, seen.append)
        names.append(name)
        return seen

    yield make
    for name in names:
        sys.modules.pop(name, None)
        _startup._finder.awaited.pop(name, None)
    assert not _startup._finder.asking


def test_a_module_is_awaited_although_somebody_has_asked_whether_it_is_there(awaited):
    seen = awaited("awaited_asked")
    for _ in range(3):
        assert importlib.util.find_spec("awaited_asked") is not None
    assert seen == []
    module = importlib.import_module("awaited_asked")
    assert seen == [module]
    importlib.import_module("awaited_asked")
    assert seen == [module]


def test_hooks_are_set_although_somebody_has_asked_whether_a_library_is_there():
    code = """
    import importlib.util
    import sharedmem
    assert importlib.util.find_spec("shelve") is not None
    assert importlib.util.find_spec("multiprocessing.pool") is not None
    import shelve, tempfile, multiprocessing.pool
    with tempfile.TemporaryDirectory() as folder:
        with shelve.open(folder + "/file") as file:
            file["a"] = sharedmem.ones(10000)
            print(len(file.dict[b"a"]) > 80000)
    """
    assert check_python(code) == "True"


def test_a_module_that_fails_is_awaited_again(awaited):
    seen = awaited("awaited_failing", "import sys\nif not hasattr(sys, 'awaited_works'): raise KeyError('x')")
    for _ in range(2):
        with pytest.raises(KeyError):
            importlib.import_module("awaited_failing")
    assert seen == []
    sys.awaited_works = True
    try:
        module = importlib.import_module("awaited_failing")
    finally:
        del sys.awaited_works
    assert seen == [module]


def test_a_module_that_is_not_there_yet_is_awaited_on(awaited, tmp_path):
    seen = awaited("awaited_late")
    (tmp_path / "awaited_late.py").rename(tmp_path / "elsewhere")
    importlib.invalidate_caches()
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("awaited_late")
    assert importlib.util.find_spec("awaited_late") is None
    (tmp_path / "elsewhere").rename(tmp_path / "awaited_late.py")
    importlib.invalidate_caches()
    assert seen == [importlib.import_module("awaited_late")]


def test_a_namespace_package_is_awaited_on_and_left_alone(awaited, tmp_path):
    seen = awaited("awaited_space")
    (tmp_path / "awaited_space.py").unlink()
    (tmp_path / "awaited_space").mkdir()
    importlib.invalidate_caches()
    assert list(importlib.import_module("awaited_space").__path__) == [str(tmp_path / "awaited_space")]
    assert seen == []


def test_actions_are_called_in_the_order_in_which_they_were_given(awaited):
    awaited("awaited_twice")
    order = []
    _startup.when_imported("awaited_twice", lambda _: order.append(1))
    _startup.when_imported("awaited_twice", lambda _: order.append(2))
    importlib.import_module("awaited_twice")
    _startup.when_imported("awaited_twice", lambda _: order.append(3))
    assert order == [1, 2, 3]


def test_an_awaited_module_has_its_own_loader_and_whoever_finds_it_can_ask_that(awaited):
    awaited("awaited_source", "number = 5")
    spec = importlib.util.find_spec("awaited_source")
    assert spec.loader.get_source("awaited_source") == "number = 5"
    assert not hasattr(spec.loader, "nothing_of_the_kind")
    assert runpy.run_module("awaited_source")["number"] == 5
    module = importlib.import_module("awaited_source")
    assert type(module.__loader__) is type(module.__spec__.loader) is type(sys.modules["support"].__loader__)


class _Asking:
    """A finder that asks all finders before it answers, as those of editable installs do."""

    def find_spec(self, name, path=None, target=None):
        if name == "awaited_nested":
            sys.meta_path.remove(self)
            try:
                return importlib.util.find_spec(name)
            finally:
                sys.meta_path.insert(1, self)
        return None


def test_finders_that_ask_the_others_end(awaited):
    seen = awaited("awaited_nested")
    finder = _Asking()
    sys.meta_path.insert(1, finder)
    try:
        module = importlib.import_module("awaited_nested")
    finally:
        sys.meta_path.remove(finder)
    assert seen == [module]


# -- this package's own


def test_each_compiled_module_is_found_in_the_one_shared_object_and_nothing_else_is():
    assert {"sharedmem.lock", "sharedmem._queue", "sharedmem._transfers.parcels"} <= _core.modules
    for name in _core.modules:
        spec = importlib.util.find_spec(name)
        assert spec.origin == _core.__file__
        assert importlib.import_module(name).__file__ == _core.__file__
    finder = next(each for each in sys.meta_path if type(each) is _startup._Compiled)
    assert finder.find_spec("sharedmem.no_such_module", None) is None
    assert finder.find_spec("lock", None) is None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("sharedmem.no_such_module")
