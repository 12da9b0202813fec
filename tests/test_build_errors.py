"""A function of `get_or_create` that raises an exception: which processes get an error, and what is left."""

import contextlib
import time

import numpy as np
import pytest
from building import BUILDER, go_on, programs, states
from naming import ended, own_names, program, said  # noqa: F401

import sharedmem


def test_an_exception_reaches_the_builder_and_all_waiting_callers():
    code = BUILDER.replace("    return np.full(1000, 7.0)", "    raise ValueError('é' * 10000)")
    waits = (
        "print('asks', flush=True)\n"
        "import pickle\n"
        "try:\n"
        "    sharedmem.get_or_create('x', lambda: print('builds too', flush=True) or np.ones(3))\n"
        "except sharedmem.BuildError as error:\n"
        "    again = pickle.loads(pickle.dumps(error))\n"
        "    assert str(again) == str(error) and again.pid == error.pid\n"
        "    text = str(error)\n"
        "    print(error.name, error.pid, len(text.encode()), text[:60], text[-5:], flush=True)\n"
    )
    with program(code) as builder:
        assert said(builder) == "builds"
        with programs(waits, 2) as waiters:
            assert {said(each) for each in waiters} == {"asks"}
            time.sleep(0.3)
            go_on(builder)
            assert "ValueError: éé" in builder.communicate(timeout=60)[1]
            for each in waiters:
                name, pid, length, *text = said(each).split()
                assert (name, int(pid)) == ("x", builder.pid)
                assert 1700 < int(length) < 1850
                assert " ".join(text).startswith(f"building 'x' failed in process {pid}: ValueError: é")
                assert text[-1].endswith("é...")
    a = sharedmem.get_or_create("x", lambda: np.ones(3))
    assert a[0] == 1


def test_a_failure_is_listed_until_the_name_is_used():
    with pytest.raises(ZeroDivisionError):
        sharedmem.get_or_create("failed", lambda: 1 / 0)
    assert states("failed") == ["failed"]
    with pytest.raises(FileNotFoundError):
        sharedmem.attach("failed")
    a = sharedmem.create("failed", 3)
    assert states("failed") == ["ready"]
    del a
    with pytest.raises(ZeroDivisionError):
        sharedmem.get_or_create("failed", lambda: 1 / 0)
    sharedmem.unlink("failed")
    assert states("failed") == []


def test_nothing_of_a_failed_building_is_kept():
    before = sharedmem.stats()["live_blocks"]

    def build():
        sharedmem.zeros(1_000_000)
        raise ValueError

    with pytest.raises(ValueError):
        sharedmem.get_or_create("failed", build)
    assert sharedmem.stats()["live_blocks"] == before


def test_an_exception_without_a_text_leaves_the_name_to_others():
    class Silent(Exception):
        def __str__(self):
            raise KeyboardInterrupt

    def build():
        raise Silent

    with pytest.raises(KeyboardInterrupt):
        sharedmem.get_or_create("silent", build)
    assert states("silent") == []
    assert (sharedmem.get_or_create("silent", lambda: np.ones(3)) == 1).all()


TRY_TWICE = """
def build():
    print("built", flush=True)
    time.sleep(2)
    raise ValueError
print("ready", flush=True)
input()
for _ in range(2):
    try:
        sharedmem.get_or_create("fails twice", build)
    except (ValueError, sharedmem.BuildError):
        pass
"""


def test_an_immediate_retry_does_not_hide_the_failure_from_waiting_callers():
    with contextlib.ExitStack() as stack:
        everybody = [stack.enter_context(program(TRY_TWICE)) for _ in range(8)]
        # Who comes later than the failure builds anew.
        assert {said(process) for process in everybody} == {"ready"}
        for process in everybody:
            process.stdin.write("\n")
            process.stdin.flush()
        assert sum(ended(process).count("built") for process in everybody) <= 4


def test_a_memory_error_in_build_reaches_all_waiting_callers():
    code = BUILDER.replace("np.full(1000, 7.0)", "sharedmem.zeros(1 << 55)")
    waits = """
print("asks", flush=True)
try:
    sharedmem.get_or_create("x", lambda: 1)
except sharedmem.BuildError as error:
    print(error, flush=True)
"""
    with program(code) as builder:
        assert said(builder) == "builds"
        with program(waits) as waiter:
            assert said(waiter) == "asks"
            time.sleep(0.3)
            go_on(builder)
            assert "\nMemoryError: " in builder.communicate(timeout=60)[1]
            assert said(waiter).startswith(f"building 'x' failed in process {builder.pid}: MemoryError: ")
