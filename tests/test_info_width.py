"""What `python -m sharedmem info` prints fits a terminal, whatever there is to show, and loses no number."""

import itertools
import os

import numpy as np
import pytest
import support

from sharedmem import NameInfo
from sharedmem._cli import info
from sharedmem._cli.segments import Process, Segment

LARGEST_PID = 4194304
MANY = list(range(LARGEST_PID - 1100, LARGEST_PID + 1))
WORDS = " ".join(f"--option-{i}=value" for i in range(20))


def segment(number, **changes):
    values = {
        "id": number,
        "backing": "sysv",
        "kind": "arena",
        "bytes": 127 << 40,
        "resident_bytes": 999 << 30,
        "swapped_bytes": 0,
        "attached": 32000,
        "creator": LARGEST_PID,
        "removed": True,
        "processes": MANY,
    }
    return Segment(**{**values, **changes})


def participant(number, state, **changes):
    values = {
        "slot": 4095,
        "pid": number,
        "state": state,
        "chunks": 66_000_000,
        "bytes": 127 << 40,
        "bytes_in_flight": 999 << 30,
        "oldest_in_flight": 123456789.0,
        "leases": 65536,
    }
    return {**values, **changes}


def name(text, **changes):
    values = {
        "name": text,
        "state": "ready",
        "shape": (1234567, 89, 1000),
        "dtype": np.dtype([(f"field {i}", "f8") for i in range(50)]),
        "nbytes": 127 << 40,
        "pid": LARGEST_PID,
        "seconds": 123456.0,
        "processes": tuple(MANY),
    }
    return NameInfo(**{**values, **changes})


def queue(**changes):
    values = {
        "messages": 1234567890,
        "bytes": 127 << 40,
        "kept": 999 << 30,
        "maxsize": 2147483647,
        "seconds": 123456789.0,
        "processes": MANY,
        "receivers": MANY,
        "senders": MANY,
        "joiners": MANY,
    }
    return {**values, **changes}


def everything():
    """What `gather` might return on a very large and busy machine."""
    arena = {
        "segment": 2147483647,
        "arena": "0123456789abcdef" * 2,
        "participants": [
            participant(LARGEST_PID, state)
            for state in ("active", "ending", "reserved", "repair", "dead", "overflow")
        ],
        "names": [
            name("x" * 255),
            name("a word " * 30),
            name("short", state="building", shape=None, dtype=None, nbytes=0),
            name("\u4e2d" * 85, state="failed", shape=None, dtype=None, nbytes=0),
            name("lock", shape=(1,), dtype=np.dtype([("sharedmem.Condition", "V64")])),
        ],
        "queues": [queue(), queue(messages=None), queue(messages=0, processes=[], receivers=[1], maxsize=0)],
        "cached_bytes": 999 << 30,
        "bytes_in_flight": 127 << 40,
        "leases": 65536,
        "oldest_in_flight": 123456789.0,
    }
    return {
        "version": "0.1.0",
        "user": "a-user-with-a-name-of-thirty-two",
        "uid": 4294967294,
        "segments": [
            segment(2147483647),
            segment(2147483646, kind="census", bytes=4096, resident_bytes=0, removed=False),
            segment(4294967295, backing="memfd", creator=None, attached=1),
            segment(5, orphan=True),
        ],
        "processes": [Process(LARGEST_PID, WORDS, list(range(2147480000, 2147480100)), 127 << 40, 999 << 30)],
        "arenas": [arena, {"segment": 2147483645, "error": "it cannot be read, since " + "why, " * 30}],
    }


def printed(capsys, found, columns, monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setenv("COLUMNS", str(columns))
    info._print(found)
    return capsys.readouterr().out


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_extreme_values_fit(columns, capsys, monkeypatch):
    out = printed(capsys, everything(), columns, monkeypatch)
    lines = out.splitlines()
    assert max(map(width, lines)) <= columns, max(lines, key=width)
    assert "\u2026" not in out  # what rich cuts
    words = set(out.replace(",", " ").replace(";", " ").split())
    for whole in (
        "2147483647",
        "1234567890",
        "4294967295",
        "4194304",
        "65536",
        "127.00",
        "999.0",
        "66000000",
    ):
        assert whole in words, whole


def width(line):
    """Columns that a line takes: two for each Chinese character."""
    return len(line) + sum(ord(character) > 0x2E80 for character in line)


def test_each_part_of_it_fits_by_itself(capsys, monkeypatch):
    found = everything()
    for keep in ("segments", "processes", "arenas"):
        part = {key: value if key not in ("segments", "processes", "arenas") or key == keep else []
                for key, value in found.items()}  # fmt: skip
        assert max(map(width, printed(capsys, part, 80, monkeypatch).splitlines())) <= 80
    (arena, _) = found["arenas"]
    for kinds in itertools.product((True, False), repeat=2):
        less = {**arena, "names": arena["names"] * kinds[0], "queues": arena["queues"] * kinds[1]}
        part = {**found, "segments": [], "processes": [], "arenas": [less]}
        assert max(map(width, printed(capsys, part, 80, monkeypatch).splitlines())) <= 80


def test_ordinary_values_are_on_one_line_each(capsys, monkeypatch):
    found = everything()
    arena = found["arenas"][0]
    arena["names"] = [name("shop/prices-v3", shape=(1000, 3), dtype=np.dtype("f8"), nbytes=24000, pid=4242,
                           seconds=12.0, processes=(4242, 4243))]  # fmt: skip
    arena["queues"] = [queue(messages=5, bytes=4096, kept=1 << 20, maxsize=0, seconds=3.0, processes=[4242],
                             receivers=[4243], senders=[], joiners=[])]  # fmt: skip
    lines = [" ".join(line.split()) for line in printed(capsys, found, 80, monkeypatch).splitlines()]
    assert "ready 12 s float64 1000x3 23.4 KiB 4242 4242, 4243 shop/prices-v3" in lines
    assert "5 4.00 KiB 1.00 MiB 3 s 4242 get 4243" in lines


def test_the_command_itself_with_many_queues():
    code = """
    import sys, sharedmem, sharedmem.__main__
    queues = [sharedmem.Queue(maxsize=2**31 - 1) for _ in range(30)]
    for queue in queues:
        queue.put(bytes(1 << 17))
    names = [sharedmem.create("name " * 50 + str(i), (1000, 1000), "i1") for i in range(3)]
    import subprocess
    subprocess.run([sys.executable, "-m", "sharedmem", "info"], check=True)
    """
    pytest.importorskip("rich")
    out = support.check_python(code, COLUMNS="80", SHAREDMEM_NAMESPACE=f"info {os.getpid()}")
    assert out.count("2147483647") == 30
    assert max(map(len, out.splitlines())) <= 80
