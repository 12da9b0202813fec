"""A cluster of Dask that starts and ends its workers by itself, as there is work."""

import json

import pytest
from support import run_python

distributed = pytest.importorskip("distributed")

# Twice: work for a cluster without workers, then peace until it has none again.
PROGRAM = """
import json
import sys
import dask
import distributed
import numpy as np
import dask_scenarios as made
import sharedmem
import sharedmem.dask

def main():
    said = []
    with (
        distributed.LocalCluster(
            n_workers=0, threads_per_worker=1, protocol="sharedmem", dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        cluster.adapt(minimum=0, maximum=2, interval="200ms", wait_count=2)
        for make in (made.ones, made.shared_ones):
            before = sharedmem.dask.tally()
            there = client.map(make, [made.LARGE] * 4, pure=False)
            sums = client.map(made.wait_and_sum, there, pure=False, seconds=0.1)
            here = client.map(made.wait_and_sum, [make() for _ in range(4)], pure=False)
            assert client.gather(sums) == client.gather(here) == [made.LARGE] * 4
            assert [a.sum() for a in client.gather(there)] == [made.LARGE] * 4
            after = sharedmem.dask.tally()
            said.append({name: after[name] - before[name] for name in ("handles", "opened")})
            del there, sums, here
            assert made.wait_until(lambda: not client.scheduler_info(n_workers=-1)["workers"]), "workers stay"
            assert made.wait_until(lambda: made.what_is_left() <= (100_000, 0)), made.what_is_left()
    print(json.dumps(said))

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
def test_workers_that_come_and_go_with_the_work():
    status, out, err = run_python(PROGRAM)
    assert status == 0, err.decode()
    for said in json.loads(out.decode().splitlines()[-1]):
        assert said["handles"] >= 4, said
        assert said["opened"] >= 4, said
