"""The parts of the demo: the work, its check, memory; sizes as people write them."""

import os

import numpy as np
import pytest
import support

import sharedmem
from sharedmem._cli import console, demo
from sharedmem._cli.demo import work


def test_brighten_values():
    a = np.array([[[0, 1], [16384, 65535]]], "u2")
    work.brighten(a)
    assert a.tolist() == [[[0, 256], [32768, 65535]]]


def test_images_are_the_same_in_parts():
    whole, parts = np.empty((2, 5, 64, 64), "u2")
    work.draw(0, whole)
    for first, last in [(0, 1), (1, 4), (4, 5)]:
        work.draw(first, parts[first:last])
    assert np.array_equal(whole, parts)
    assert not np.array_equal(whole[0], whole[1])


def test_check_finds_one_wrong_pixel():
    a = np.empty((3, 64, 64), "u2")
    work.draw(5, a)
    assert "pixel (0, 0) of image 5 is " in work.first_wrong(5, a)  # not brightened
    work.brighten(a)
    assert work.first_wrong(5, a) is None
    a[1, 20, 30] ^= 1
    assert "pixel (20, 30) of image 6 is " in work.first_wrong(5, a)


def test_wrong_result_shows_in_the_exit_status(capsys):
    assert demo._conclude([]) == 0
    assert demo._conclude(["sharedmem: WRONG: pixel (1, 2) of image 3 is 1 instead of 2"]) == 1
    assert "image 3 is 1" in capsys.readouterr().out


def test_a_way_without_room_is_left_out(monkeypatch, capsys):
    class Full:
        free = 0

    monkeypatch.setattr(demo.shutil, "disk_usage", lambda folder: Full)
    assert demo.run(2**20, 1, "fork") == 0
    out = capsys.readouterr().out
    assert "left out: no room" in out
    assert [line.split()[-1:] for line in out.splitlines()].count(["equal"]) == 2


def test_resident_counts_shared_pages_once():
    nbytes = 2**24
    a = sharedmem.ones(nbytes, np.uint8)
    with support.Remote() as child:
        before = work.resident([os.getpid(), child.pid])
        child.call(np.sum, a)
        after = work.resident([os.getpid(), child.pid])
    assert abs(after - before) < nbytes // 2


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("1", 1),
        ("2k", 2048),
        ("1.5 KiB", 1536),
        ("1kB", 1000),
        ("64MiB", 2**26),
        ("3gb", 3 * 10**9),
        ("1e3", 1000),
    ],
)
def test_parse_bytes(text, nbytes):
    assert console.parse_bytes(text) == nbytes


@pytest.mark.parametrize("text", ["", "B", "1 2", "-1", "0", "nan", "1PiB", "KiB", "\u0661"])
def test_parse_bytes_refuses(text):
    with pytest.raises(ValueError, match="is not a size"):
        console.parse_bytes(text)


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (1000 * 1024, "0.98 MiB"), (2**40, "1.00 TiB")],
)
def test_format_bytes(nbytes, text):
    assert console.format_bytes(nbytes) == text
