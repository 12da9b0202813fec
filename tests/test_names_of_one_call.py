"""A call that names an array reads SHAREDMEM_NAMESPACE once, when it begins, however long it takes."""

import os
import threading

import numpy as np
import pytest
from building import BUILDER, go_on
from naming import NAMESPACE, TIMEOUT, ended, killed, own_names, program, said  # noqa: F401

import sharedmem

OTHER = f"other {NAMESPACE}"

ATTACH = "print(len(sharedmem.attach('x', timeout=60)))"


@pytest.fixture(autouse=True)
def first_namespace():
    """An array keeps its arena of names attached, and its names are those of the process after each test."""
    kept = sharedmem.create("kept", 1)
    yield
    os.environ["SHAREDMEM_NAMESPACE"] = NAMESPACE
    assert sharedmem.attach("kept").shape == kept.shape


def move_on():
    os.environ["SHAREDMEM_NAMESPACE"] = OTHER


class Waiting:
    """A call in a thread of its own. It has begun when it has read its timeout for the last time."""

    def __init__(self, function, *args, reads):
        self._reads = reads
        self._begun = threading.Event()
        self._result = None
        self._thread = threading.Thread(target=self._call, args=(function, args))
        self._thread.start()
        assert self._begun.wait(TIMEOUT)

    def __float__(self):
        self._reads -= 1
        if self._reads == 0:
            self._begun.set()
        return float(TIMEOUT)

    def _call(self, function, args):
        try:
            self._result = function(*args, timeout=self)
        except Exception as error:
            self._result = error

    def result(self):
        self._thread.join(2 * TIMEOUT)
        assert not self._thread.is_alive()
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


def test_attach_waits_for_a_name_of_the_namespace_in_which_it_began():
    waiting = Waiting(sharedmem.attach, "x", reads=1)
    move_on()
    not_this = sharedmem.create("x", 5)
    code = "a = sharedmem.create('x', 3); print('made', flush=True); sys.stdin.read()"
    with program(code, SHAREDMEM_NAMESPACE=NAMESPACE) as maker:
        assert said(maker) == "made"
        assert waiting.result().shape == (3,)
    assert not_this.shape == (5,)


def test_who_waits_for_a_builder_gets_its_array():
    with program(BUILDER) as builder:
        assert said(builder) == "builds"
        waiting = Waiting(sharedmem.get_or_create, "x", refuse, reads=2)
        move_on()
        go_on(builder)
        assert said(builder) == "7.0"
        assert waiting.result()[0] == 7
        assert sharedmem.names() == []


def refuse():
    raise AssertionError("another process builds")


def test_who_replaces_a_builder_builds_for_the_same_processes():
    with program(BUILDER) as builder:
        assert said(builder) == "builds"
        waiting = Waiting(sharedmem.get_or_create, "x", lambda: np.ones(4), reads=2)
        move_on()
        killed(builder)
        a = waiting.result()
        assert sharedmem.names() == []
    with program(ATTACH, SHAREDMEM_NAMESPACE=NAMESPACE) as other:
        assert ended(other).strip() == str(len(a))


def test_a_function_that_builds_may_change_the_namespace():
    def build():
        move_on()
        return np.ones(6)

    a = sharedmem.get_or_create("x", build)
    assert sharedmem.names() == []
    os.environ["SHAREDMEM_NAMESPACE"] = NAMESPACE
    assert sharedmem.attach("x").shape == a.shape


def test_create_names_its_array_in_the_namespace_in_which_it_began():
    class Length:
        def __index__(self):
            move_on()
            return 7

    a = sharedmem.create("x", Length())
    assert sharedmem.names() == []
    os.environ["SHAREDMEM_NAMESPACE"] = NAMESPACE
    assert sharedmem.attach("x").shape == a.shape
