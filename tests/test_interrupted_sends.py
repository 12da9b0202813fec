"""A program that is interrupted while it sends or saves (Ctrl-C) goes on as before."""

import ctypes
import io
import itertools
import multiprocessing
import os
import pickle
import signal
import sys

import numpy as np
import pytest
from lost import DUPLEX
from support import settle

import sharedmem
from sharedmem._messages import by_value
from sharedmem._transfers import pickling, saving


def interrupted_at(step, function, *args):
    """Calls the function and interrupts it when it comes to a step of its Python code; whether it did."""
    steps = itertools.count()

    def trace(frame, event, arg):
        if next(steps) == step:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function(*args)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def every_step(act):
    """Calls ``act(step)`` for each step until it returns False: the call had fewer steps."""
    assert any(not act(step) for step in range(10_000))


def is_open(connection):
    if sys.platform == "win32":
        file_type = ctypes.WinDLL("kernel32").GetFileType
        return file_type(ctypes.c_void_p(connection.fileno())) != 0
    os.fstat(connection.fileno())
    return True


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@DUPLEX
def test_a_connection_stays_open(duplex):
    """Also during its first message, for which the library finds out where the connection leads."""

    def act(step):
        reader, writer = multiprocessing.Pipe(duplex)
        with reader, writer:
            interrupted = interrupted_at(step, writer.send, 1)
            settle()
            assert is_open(writer)
            return interrupted

    every_step(act)


class SetAndInterrupted:
    """In place of a context variable: the signal arrives while it is being set."""

    def get(self):
        return by_value.get()

    def set(self, value):
        token = by_value.set(value)
        if value:
            signal.raise_signal(signal.SIGINT)
        return token

    def reset(self, token):
        by_value.reset(token)


def save():
    np.save(io.BytesIO(), sharedmem.ones(3))


def pickle_by_value():
    with sharedmem.pickle_by_value():
        pickle.dumps(sharedmem.ones(3))


@pytest.mark.needs_nothing  # all systems can raise SIGINT
@pytest.mark.parametrize("function", [save, pickle_by_value])
def test_what_follows_is_pickled_by_handle(function, monkeypatch):
    """Functions that pickle by value do so for themselves alone."""
    for module in (saving, pickling):
        monkeypatch.setattr(module, "by_value", SetAndInterrupted())
    with pytest.raises(KeyboardInterrupt):
        function()
    assert not by_value.get()
    assert sharedmem.is_shared(pickle.loads(pickle.dumps(sharedmem.ones(3))))
