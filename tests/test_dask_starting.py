"""A cluster of Dask that is started from the command line, and whose workers have little memory."""

import contextlib
import json
import os
import subprocess
import sys

import pytest
from support import TIMEOUT, environment

distributed = pytest.importorskip("distributed")
made = pytest.importorskip("dask_scenarios")


MEMORY = 480 * made.MIB  # of a worker, whose nanny restarts it at 95 % of that
ARRAYS = 32
SIZE = 16 * made.LARGE  # elements, 16 MiB: all arrays are more than a worker's memory

# From this part of its memory on a worker spills before it takes the next array, however slow the disk is: it
# has 120 MiB for itself, 120 of arrays, some 50 on their way and as much warm memory.
TARGET = 0.25


@contextlib.contextmanager
def command(log, *args, **env):
    """A command of Dask, that runs until the end of the block; what it says is added to a file."""
    with open(log, "ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *map(str, args)],
            env=environment(related=False, **env),
            stdout=file,
            stderr=file,
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(TIMEOUT)
        finally:
            process.kill()


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def client(tmp_path, log):
    """Of a scheduler and two workers, with nannies."""
    file = tmp_path / "scheduler.json"
    where = ("--host", "127.0.0.1", "--no-dashboard")
    with command(log, "scheduler", "--protocol", "sharedmem", "--port", 0, "--scheduler-file", file, *where):
        assert made.wait_until(file.exists)
        address = json.loads(file.read_text())["address"]
        assert address.startswith("sharedmem://127.0.0.1:")
        each = ("--nthreads", 1, "--memory-limit", MEMORY, "--local-directory", tmp_path)
        target = {"DASK_DISTRIBUTED__WORKER__MEMORY__TARGET": str(TARGET)}
        with (
            command(log, "worker", address, "--nworkers", 2, *each, *where, **target),
            distributed.Client(address, timeout=f"{TIMEOUT}s") as connected,
        ):
            connected.wait_for_workers(2, timeout=TIMEOUT)
            yield connected


@pytest.mark.slow
def test_workers_of_the_command_line_spill_what_is_more_than_their_memory(client, log):
    a, b = made.workers_of(client)
    pids = client.run(os.getpid)
    makers = (made.ones, made.shared_ones) * (ARRAYS // 2)
    arrays = [client.submit(make, SIZE, workers=[a], pure=False) for make in makers]
    for where in (b, a):
        sums = [client.submit(made.wait_and_sum, each, workers=[where], pure=False) for each in arrays]
        assert client.gather(sums) == [SIZE] * ARRAYS
    assert client.run(os.getpid) == pids, log.read_text()
    assert min(client.run(made.number_spilled).values()) >= ARRAYS // 2
    for tally in client.run(made.my_tally).values():
        assert tally["handles"] + tally["opened"] >= ARRAYS, tally
