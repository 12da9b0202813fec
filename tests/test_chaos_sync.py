"""A short run of `chaos_sync`: users of queues, conditions, locks and `Latest` that are killed at random."""

import os
import subprocess
import sys

import pytest
from support import TESTS, TIMEOUT, environment


@pytest.mark.needs_signals
def test_random_kills():
    """Every part kills and receives, and nothing is amiss; the table is printed."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.chaos_sync", "--minutes", "0.08"],
        cwd=os.path.dirname(TESTS),
        env=environment(related=False),  # what is left is counted in the whole arena
        capture_output=True,
        text=True,
        timeout=4 * TIMEOUT,
    )
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    _, names, *rows = ended.stdout.splitlines()
    kills, received = names.split().index("kills"), names.split().index("received")
    for row in rows:
        counts = row[12:].split()
        assert int(counts[kills]) > 0, row
        assert int(counts[received]) > 0, row
    assert [row[:12].strip() for row in rows] == ["Queue", "Condition", "Lock, RLock", "Latest", "all"]
