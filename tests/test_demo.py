"""The parts of the demo: the work, its check, memory; sizes as people write them."""

import os

import numpy as np
import pytest
import support

import sharedmem
from sharedmem._cli import console

pytest.importorskip("rich", reason="the demo needs rich")

from sharedmem._cli import demo
from sharedmem._cli.demo import memory, source, work
from sharedmem._cli.demo.contest import Result


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", ">i2", "u4", "i8", "u8", "f2", "f4", ">f8", "g"])
def test_brighten_is_the_same_in_parts(dtype):
    values = 1000 * np.random.default_rng(1).standard_normal(1001)
    if np.dtype(dtype).kind != "f":
        values = values.astype("i8")
    values = values.astype(dtype)
    whole, parts = values.copy(), values.copy()
    work.brighten(whole)
    for part in np.split(parts, [1, 8, 9, 100, 731]):
        work.brighten(part)
    assert whole.tobytes() == parts.tobytes()
    assert not np.array_equal(whole, values)


def test_brighten_values():
    a = np.array([0, 1, 64, 255], "u1")
    work.brighten(a)
    assert a.tolist() == [0, 16, 128, 255]
    a = np.array([-(2**63), -1, 0, 2**63 - 1])
    work.brighten(a)
    assert a[2] == 0
    assert a[0] < -(2**62)
    assert a[3] > 2**62
    a = np.array([-4.0, 9.0])
    work.brighten(a)
    assert a.tolist() == [-2, 3]


def test_check_finds_one_wrong_element():
    stack = source.Stack(2**20)
    a = np.empty(2 * stack.grain, stack.dtype)
    stack.read(stack.grain, a)
    work.brighten(a)
    assert work.Check(stack)(stack.grain, a) is None
    a[70000] ^= 1
    assert f"element {stack.grain + 70000} is " in work.Check(stack)(stack.grain, a)


def test_wrong_result_shows_in_the_exit_status(capsys):
    assert demo._conclude([Result("a", wrong=""), Result("b")], []) == 0
    assert demo._conclude([Result("a", wrong=""), Result("b", wrong="element 3 is 1")], []) == 1
    assert "b: WRONG: element 3 is 1" in capsys.readouterr().out


def test_resident_counts_shared_pages_once():
    nbytes = 2**24
    a = sharedmem.ones(nbytes, np.uint8)
    with support.Remote("fork") as child:
        before = memory.resident([os.getpid(), child.pid])
        child.call(np.sum, a)
        after = memory.resident([os.getpid(), child.pid])
    assert abs(after - before) < nbytes // 2


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("1", 1), ("2k", 2048), ("1.5 KiB", 1536), ("1kB", 1000), ("64MiB", 2**26), ("3gb", 3 * 10**9)],
)
def test_parse_bytes(text, nbytes):
    assert console.parse_bytes(text) == nbytes


@pytest.mark.parametrize("text", ["", "B", "1 2", "1e3", "-1", "0", "nan", "1PiB", "KiB", "\u0661"])
def test_parse_bytes_refuses(text):
    with pytest.raises(ValueError, match="is not a size"):
        console.parse_bytes(text)


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (1000 * 1024, "0.98 MiB"), (2**40, "1.00 TiB")],
)
def test_format_bytes(nbytes, text):
    assert console.format_bytes(nbytes) == text
