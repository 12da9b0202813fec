"""`sharedmem.ray`: arrays that actors and drivers share, and what becomes of them."""

import functools
import importlib
import json
import os
import subprocess
import sys
import tempfile

import pytest
from support import TESTS, TIMEOUT, check_python, environment

ray = pytest.importorskip("ray")

SCENARIOS = (
    "two_actors_write_the_same_memory",
    "memory_goes_with_the_references",
    "what_the_driver_puts",
    "ordinary_arrays_are_copied_and_other_objects_stored_by_value",
    "inside_objects_and_lists",
    "arrays_of_all_kinds",
    "values_go_through_the_store_as_ever",
    "refused_memory_means_values",
    "actors_put",
    "tasks_put",
    "readers_keep_what_a_killed_owner_made",
    "an_actor_that_ray_restarts",
    "an_end_with_references",
)

QUIET = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


@functools.cache
def said_by_scenarios():
    """What they said, which run one after the other with one Ray."""
    with tempfile.TemporaryDirectory(prefix="ray") as folder:  # a short path: Ray has sockets in it
        command = [sys.executable, os.path.join(TESTS, "ray_scenarios.py"), folder, *SCENARIOS]
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=5 * TIMEOUT,
            env=environment(related=False, HOME=folder, **QUIET),
            text=True,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", SCENARIOS)
def test_in_one_place(name):
    said = said_by_scenarios()[name]
    assert said is None, said


def test_without_ray_the_extra_is_named():
    code = """
    import sys
    sys.modules["ray"] = None
    import sharedmem
    for call in (sharedmem.ray.register, lambda: sharedmem.ray.put(1)):
        try:
            call()
        except ImportError as error:
            print(error)
    """
    said = "sharedmem.ray needs Ray, which is not installed: pip install 'numpy-sharedmem[ray]'"
    assert check_python(code) == f"{said}\n{said}"


def lack(monkeypatch, what):
    """Take something away that the transport needs of Ray."""
    rdt = importlib.import_module("ray.experimental.rdt")
    store = importlib.import_module("ray.experimental.rdt.rdt_store").RDTStore
    match what:
        case "no transports":
            monkeypatch.setitem(sys.modules, "ray.experimental.rdt", None)
        case "a method more":
            methods = {*rdt.TensorTransportManager.__abstractmethods__, "new"}
            monkeypatch.setattr(rdt.TensorTransportManager, "__abstractmethods__", methods)
        case "other parameters":
            monkeypatch.setattr(rdt, "register_tensor_transport", lambda name, kind: None)
        case "put":
            monkeypatch.setattr(ray, "put", lambda value: ("stored", value))
        case "another manager":
            monkeypatch.delattr(rdt.RDTManager, "get_rdt_metadata")
        case "another store":
            monkeypatch.delattr(store, "pop_object")


@pytest.mark.parametrize(
    "what",
    ["no transports", "a method more", "other parameters", "put", "another manager", "another store"],
)
def test_a_version_without_the_hooks_gets_values_and_one_warning(monkeypatch, what):
    import sharedmem.ray
    from sharedmem._integrations import ray_hooks

    monkeypatch.setattr(ray_hooks, "missing_hooks", ray_hooks.missing_hooks.__wrapped__)
    monkeypatch.setattr(sharedmem.ray, "_warned", set())
    assert ray_hooks.missing_hooks() is None
    lack(monkeypatch, what)
    missing = ray_hooks.missing_hooks()
    assert missing
    if what != "put":
        monkeypatch.setattr(ray, "put", lambda value: ("stored", value))
        monkeypatch.setattr(ray_hooks, "missing_hooks", lambda: missing)
    with pytest.warns(RuntimeWarning, match=f"does not know Ray {ray.__version__}.*as if") as said:
        found = [sharedmem.ray.register(), sharedmem.ray.register(), sharedmem.ray.put(7)]
    assert found == [False, False, ("stored", 7)]
    assert len(said) == 1
    assert said[0].filename == __file__


def test_registering_is_idempotent_and_changes_nothing_by_the_import_alone():
    code = """
    import threading
    import sharedmem.ray
    from ray.experimental import RDTManager
    import ray.experimental.rdt.util as util
    assert "SHAREDMEM" not in util.transport_manager_info
    threads = [threading.Thread(target=sharedmem.ray.register) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    first = RDTManager.shutdown
    assert sharedmem.ray.register() is True
    assert RDTManager.shutdown is first
    print(util.transport_manager_info["SHAREDMEM"].data_type is sharedmem.SharedArray)
    """
    assert check_python(code) == "True"
