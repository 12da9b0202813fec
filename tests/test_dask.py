"""Dask over shared memory: what tasks, clients and spilled objects get, and that it went by handle."""

import functools
import json
import os
import subprocess
import sys

import pytest
from support import TESTS, TIMEOUT, environment

distributed = pytest.importorskip("distributed")

GROUPS = {
    "basic": (
        "a_large_argument_arrives_in_shared_memory",
        "what_was_allocated_by_us_is_shared_by_all",
        "plain_arrays_are_nobody_elses",
        "what_was_carried_is_copied_when_it_is_passed_on",
        "small_arrays_can_be_written",
        "scatter_and_arguments",
        "objects_of_all_kinds_are_equal",
        "handles_were_sent",
        "nothing_is_left",
    ),
    "spill": ("spilled_objects_come_back", "nothing_is_left"),
    "rechunk": ("rechunk_and_shuffle", "nothing_is_left"),
}


@functools.cache
def said_by(group, protocol):
    """What the scenarios of a group said, which run in one cluster."""
    command = [sys.executable, os.path.join(TESTS, "dask_scenarios.py"), group, protocol]
    done = subprocess.run(
        command, capture_output=True, timeout=5 * TIMEOUT, env=environment(related=False), text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in GROUPS for name in GROUPS[group]])
def test_a_local_cluster(group, name):
    said = said_by(group, "sharedmem")
    assert set(said) == set(GROUPS[group])
    assert said[name] is None, said[name]
