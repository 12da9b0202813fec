"""A Dask cluster whose processes are started one by one, each where a test wants it."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time

from support import TIMEOUT, environment

SCHEDULER = """
import asyncio, sys
PRELOAD
import distributed
async def main():
    scheduler = distributed.Scheduler(host="HOST", protocol=sys.argv[1], port=0, dashboard_address=None)
    async with scheduler:
        print(scheduler.address, flush=True)
        await scheduler.finished()
asyncio.run(main())
"""

WORKER = """
import asyncio, sys
import numpy, sharedmem
PRELOAD
# All that is needed later: another user may not be allowed to read our files.
import dask_scenarios, distributed, sharedmem.dask, sharedmem._engines.dask_comm
sharedmem.stats, sharedmem.place
BECOME
async def main():
    worker = distributed.Worker(sys.argv[1], name=sys.argv[2], nthreads=1, host="HOST",
                                memory_limit=sys.argv[3], dashboard=False, local_directory=sys.argv[4])
    async with worker:
        print(worker.address, flush=True)
        await worker.finished()
asyncio.run(main())
"""


def filled(code, preload="", become="", host="127.0.0.1"):
    """The program of a scheduler or a worker, with what a test wants in it."""
    return code.replace("PRELOAD", preload).replace("BECOME", become).replace("HOST", host)


class Cluster:
    """Processes that end with the test."""

    def __init__(self, protocol="sharedmem", preload="", **options):
        self.preload = preload
        self.processes = {}
        self.directory = tempfile.TemporaryDirectory()
        self.address = self._start("scheduler", SCHEDULER, protocol, **options)

    def _start(self, name, code, *args, prefix=(), become="", host="127.0.0.1", related=False, **env):
        code = filled(code, self.preload, become, host)
        process = subprocess.Popen(
            [*prefix, sys.executable, "-c", code, *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(related=related, **env),
            text=True,
        )
        self.processes[name] = process
        said = process.stdout.readline().strip()
        assert "://" in said, (name, process.poll(), said)
        return said

    def worker(self, name, memory_limit="0", **options):
        """Starts a worker; its address."""
        place = os.path.join(self.directory.name, name)
        os.mkdir(place)
        os.chmod(self.directory.name, 0o777)
        os.chmod(place, 0o777)
        return self._start(name, WORKER, self.address, name, memory_limit, place, **options)

    def signal(self, name, number):
        self.processes[name].send_signal(number)

    def wait(self, name):
        self.processes[name].wait(TIMEOUT)

    def close(self):
        for process in self.processes.values():
            if process.poll() is None:
                with contextlib.suppress(OSError):
                    process.send_signal(signal.SIGCONT)
                    process.terminate()
        end = time.monotonic() + 20
        for process in self.processes.values():
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        self.directory.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
