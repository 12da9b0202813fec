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


@contextlib.contextmanager
def command(*args):
    """A command of Dask, that runs until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *map(str, args)],
        env=environment(related=False),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
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
def client(tmp_path):
    """Of a scheduler and two workers, with nannies, which have 400 MiB each."""
    file = tmp_path / "scheduler.json"
    where = ("--host", "127.0.0.1", "--no-dashboard")
    with command("scheduler", "--protocol", "sharedmem", "--port", 0, "--scheduler-file", file, *where):
        assert made.wait_until(file.exists)
        address = json.loads(file.read_text())["address"]
        assert address.startswith("sharedmem://127.0.0.1:")
        each = ("--nthreads", 1, "--memory-limit", "400MiB", "--local-directory", tmp_path)
        with (
            command("worker", address, "--nworkers", 2, *each, *where),
            distributed.Client(address, timeout=f"{TIMEOUT}s") as connected,
        ):
            connected.wait_for_workers(2, timeout=TIMEOUT)
            yield connected


@pytest.mark.slow
def test_workers_of_the_command_line_spill_what_is_more_than_their_memory(client):
    a, b = made.workers_of(client)
    pids = client.run(os.getpid)
    size = 32 * made.LARGE
    arrays = [
        client.submit(make, size, workers=[a], pure=False) for make in (made.ones, made.shared_ones) * 4
    ]
    for where in (b, a):
        sums = [client.submit(made.wait_and_sum, each, workers=[where], pure=False) for each in arrays]
        assert client.gather(sums) == [size] * len(arrays)
    assert client.run(os.getpid) == pids, "a worker was restarted"
    for tally in client.run(made.my_tally).values():
        assert tally["handles"] + tally["opened"] >= len(arrays), tally
