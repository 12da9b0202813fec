"""How modules of this package are found, and other libraries' modules awaited: `sharedmem._startup`."""

import copy
import importlib
import importlib.machinery
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


def test_a_module_is_awaited_although_find_spec_was_called_for_it(awaited):
    seen = awaited("awaited_asked")
    for _ in range(3):
        assert importlib.util.find_spec("awaited_asked") is not None
    assert seen == []
    module = importlib.import_module("awaited_asked")
    assert seen == [module]
    importlib.import_module("awaited_asked")
    assert seen == [module]


def test_hooks_are_set_although_find_spec_was_called_for_a_library():
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
    assert "awaited_twice" not in _startup._finder.awaited  # an action is called once
    assert sys.meta_path.count(_startup._finder) == 1
    importlib.reload(sys.modules["awaited_twice"])
    assert order == [1, 2, 3]


def test_an_awaited_module_has_its_own_loader_which_can_be_used(awaited):
    awaited("awaited_source", "number = 5")
    spec = importlib.util.find_spec("awaited_source")
    assert copy.copy(spec.loader).get_source("awaited_source") == "number = 5"
    assert spec.loader.get_source("awaited_source") == "number = 5"
    assert not hasattr(spec.loader, "nothing_of_the_kind")
    assert runpy.run_module("awaited_source")["number"] == 5
    module = importlib.import_module("awaited_source")
    assert type(module.__loader__) is type(module.__spec__.loader) is type(sys.modules["support"].__loader__)


def test_compiled_modules_and_those_of_the_interpreter_can_be_awaited():
    code = """
    import importlib, importlib.util, sys
    from sharedmem import _startup
    found = []
    for name in ("_lsprof", "_testbuffer", "_zoneinfo", "_crypt", "xxlimited", "audioop", "_xxtestfuzz"):
        if name not in sys.modules and importlib.util.find_spec(name) is not None:
            _startup.when_imported(name, found.append)
            assert found == [importlib.import_module(name)]
            assert any(not each.startswith("__") for each in vars(found.pop()))
            break
    else:
        print("none is there")
    """
    assert check_python(code) in ("", "none is there")


class _Asking:
    """A finder that calls all finders before it answers, as those of editable installs do."""

    def __init__(self):
        self.asked = 0

    def find_spec(self, name, path=None, target=None):
        if name == "awaited_nested":
            self.asked += 1
            if self.asked == 1:
                return importlib.util.find_spec(name)
        return None


def test_finders_that_call_all_others_are_called_only_once_more(awaited, monkeypatch):
    seen = awaited("awaited_nested")
    finder, old = _Asking(), object()  # and one of the time before `find_spec`, which is left alone
    # After the finder for awaited modules.
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path[:1], finder, *sys.meta_path[1:]])
    assert sys.meta_path[0] is _startup._finder
    spec = importlib.util.find_spec("awaited_nested")
    assert type(spec.loader.loader) is not _startup._Loader
    assert finder.asked == 2
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path[:1], old, *sys.meta_path[1:]])
    assert _startup._finder.find_spec("awaited_nested", None) is not None
    module = importlib.import_module("awaited_nested")
    assert seen == [module]


# -- this package's own


def test_each_compiled_module_is_found_in_the_one_shared_object_and_nothing_else_is():
    assert {"sharedmem.lock", "sharedmem._queue", "sharedmem._transfers.parcels"} <= _core.modules
    for name in _core.modules:
        spec = importlib.util.find_spec(name)
        assert spec.origin == _core.__file__
        assert spec.loader.name == name
        assert importlib.import_module(name).__file__ == _core.__file__
    finder = next(each for each in sys.meta_path if type(each) is _startup._Compiled)
    assert finder.find_spec("sharedmem.no_such_module", None) is None
    assert finder.find_spec("lock", None) is None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("sharedmem.no_such_module")


def test_they_are_found_before_the_file_system_is_searched():
    kinds = [each if isinstance(each, type) else type(each) for each in sys.meta_path]
    assert kinds.index(_startup._Compiled) < kinds.index(importlib.machinery.PathFinder)
    assert importlib.util.find_spec("sharedmem.lock").has_location


def test_a_fork_waits_until_another_thread_has_run_a_module_of_this_package():
    code = """
    import importlib.util, os, signal, sys, threading, time, warnings
    import sharedmem
    warnings.simplefilter("ignore", DeprecationWarning)     # of a fork with threads
    begun = threading.Event()

    class Slow:
        # The module's own loader, which takes its time.
        def __init__(self, loader):
            self.loader = loader
        def create_module(self, spec):
            return self.loader.create_module(spec)
        def exec_module(self, module):
            begun.set()
            time.sleep(0.5)
            self.loader.exec_module(module)

    class Finder:
        def find_spec(self, name, path, target=None):
            if name == "sharedmem._naming":
                sys.meta_path.remove(self)
                spec = importlib.util.find_spec(name)
                spec.loader = Slow(spec.loader)
                return spec

    sys.meta_path.insert(0, Finder())
    for _ in range(2):
        thread = threading.Thread(target=lambda: sharedmem.NameInfo)
        thread.start()
        begun.wait()
        pid = os.fork()
        if pid == 0:
            signal.alarm(30)
            # In another thread as well: the lock is free.
            other = threading.Thread(target=lambda: sharedmem.Lock)
            other.start()
            other.join()
            os._exit(0 if issubclass(sharedmem.BuildError, RuntimeError) else 1)
        print(os.waitpid(pid, 0)[1])
        thread.join()
    """
    assert check_python(code).split() == ["0", "0"]
