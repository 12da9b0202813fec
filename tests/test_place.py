"""`sharedmem.place`: equal in two processes only if each can use the other's shared memory."""

import pickle

import pytest
from support import (
    KINDS,
    LOCATOR,
    Remote,
    check_python,
    needs_namespaces,
    needs_root,
    run_python,
)

import sharedmem

# A process that says where it is, and whether it can load the array whose pickle it is given.
HERE_OR_NOT = """
import os, pickle, sys
import numpy, sharedmem
sharedmem.place
BECOME
print(sharedmem.place())
try:
    print(pickle.loads(bytes.fromhex(sys.argv[1])).sum() == 5)
except (OSError, sharedmem.StaleHandleError) as error:
    print("refused")
"""

BECOME_ANOTHER_USER = "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)"


def other_place(become="", **options):
    """The place of another process, and whether that can load an array of this one."""
    a = sharedmem.ones(5)
    said = check_python(HERE_OR_NOT.replace("BECOME", become), pickle.dumps(a).hex(), **options)
    where, loaded = said.split()
    return where, loaded == "True"


def place_in_a_child():
    return sharedmem.place()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_in_processes_that_share_memory(kind):
    with Remote(kind) as remote:
        assert remote.call(place_in_a_child) == sharedmem.place()


@pytest.mark.parametrize("related", [True, False])
def test_the_same_for_an_unrelated_program_and_its_memory_can_be_used(related):
    assert other_place(related=related) == (sharedmem.place(), True)


def test_a_new_arena_is_in_the_same_place():
    code = """
    import sharedmem
    before = sharedmem.place()
    sharedmem.new_arena()
    print(before == sharedmem.place())
    """
    assert check_python(code) == "True"


def test_it_is_one_printable_word():
    here = sharedmem.place()
    assert type(here) is str
    assert here.isascii()
    assert here.isprintable()
    assert not set(here) & set(" \t'\"")


@needs_root
@pytest.mark.parametrize("option", ["--ipc", "--user"])
def test_another_namespace_is_another_place(option):
    options = [option, "--map-root-user"] if option == "--user" else [option]
    needs_namespaces(*options)
    where, loaded = other_place(prefix=["unshare", *options])
    assert where != sharedmem.place()
    if option == "--ipc":
        assert not loaded


@needs_root
def test_other_pids_and_mounts_are_the_same_place():
    needs_namespaces("--pid", "--mount")
    prefix = ["unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
    assert other_place(prefix=prefix) == (sharedmem.place(), True)


@needs_root
def test_another_user_is_elsewhere():
    where, loaded = other_place(BECOME_ANOTHER_USER)
    assert where != sharedmem.place()
    assert not loaded


@needs_root
def test_a_process_that_becomes_another_user_is_elsewhere_from_then_on():
    code = f"""
    import os, sharedmem
    before = sharedmem.place()
    {BECOME_ANOTHER_USER}
    print(before == sharedmem.place())
    """
    assert check_python(code) == "False"


@needs_root
def test_a_process_that_leaves_its_ipc_namespace_is_elsewhere_from_then_on():
    needs_namespaces("--ipc")
    code = """
    import ctypes, sharedmem
    before = sharedmem.place()
    CLONE_NEWIPC = 0x08000000
    assert ctypes.CDLL(None).unshare(CLONE_NEWIPC) == 0
    print(before == sharedmem.place())
    """
    assert check_python(code) == "False"


@needs_root
def test_memfds_are_found_within_a_pid_namespace_only():
    needs_namespaces("--ipc", "--pid", "--mount")
    code = """
    import subprocess, sys
    import sharedmem
    assert sharedmem.stats()["backing"] == "memfd", sharedmem.stats()["backing"]
    ask = [sys.executable, "-c", "import sharedmem; print(sharedmem.place())"]
    inside = ["unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
    places = [subprocess.run(prefix + ask, capture_output=True, check=True, text=True).stdout.strip()
              for prefix in ([], inside)]
    print(places[0] == sharedmem.place(), places[1] == sharedmem.place())
    """
    status, out, err = run_python(
        code, prefix=["unshare", "--ipc"], shell="echo 0 > /proc/sys/kernel/shmmni || exit 77"
    )
    if status == 77:
        pytest.skip("the limit cannot be set here")
    assert (status, err.decode(), out.decode().split()) == (0, "", ["True", "False"])


def test_it_makes_the_arena_that_it_speaks_of():
    code = """
    import sharedmem
    here = sharedmem.place()
    print(sharedmem.stats()["arena"] is not None, here == sharedmem.place())
    """
    assert check_python(code, related=True, **{LOCATOR: ""}) == "True True"
