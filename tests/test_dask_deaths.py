"""Workers of Dask that are killed: no wrong data, and nothing is kept for them."""

import signal
import time

import pytest
from dask_cluster import Cluster
from support import TIMEOUT

distributed = pytest.importorskip("distributed")
made = pytest.importorskip("dask_scenarios")


def shorter_grace(seconds):
    import sharedmem._engines.dask_parcels as parcels

    parcels.GRACE = seconds


@pytest.fixture
def cluster():
    with Cluster() as made_now:
        made_now.addresses = {name: made_now.worker(name) for name in ("a", "b")}
        yield made_now


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster.address, timeout=f"{TIMEOUT}s") as connected:
        yield connected


def test_what_a_killed_worker_had_sent_is_right_and_nothing_is_left(cluster, client):
    a, b = cluster.addresses["a"], cluster.addresses["b"]
    futures = [
        client.submit(make, workers=[a], pure=False, allow_other_workers=True)
        for make in (made.ones, made.shared_ones)
    ]
    sums = [client.submit(made.wait_and_sum, each, workers=[b], pure=False) for each in futures]
    assert client.gather(sums) == [made.LARGE] * 2
    cluster.signal("a", signal.SIGKILL)
    cluster.wait("a")
    again = [client.submit(made.wait_and_sum, each, workers=[b], pure=False) for each in futures]
    assert client.gather(again) == [made.LARGE] * 2
    del futures, sums, again
    assert made.wait_until(lambda: client.run(made.what_is_left)[b] <= (100_000, 0)), client.run(
        made.what_is_left
    )


def test_what_a_stopped_worker_did_not_read_is_called_back_after_its_death(cluster, client):
    a, b = cluster.addresses["a"], cluster.addresses["b"]
    client.run(shorter_grace, 3.0, workers=[a])
    futures = [client.submit(made.ones, 4 * made.LARGE, workers=[a], pure=False) for _ in range(4)]
    distributed.wait(futures)
    # The worker asks for them, and is stopped before it has read the answer.
    first = client.submit(made.wait_and_sum, futures[0], workers=[b], pure=False)
    first.result()
    waiting = [client.submit(made.wait_and_sum, each, workers=[b], pure=False) for each in futures[1:]]
    cluster.signal("b", signal.SIGSTOP)
    time.sleep(1)
    cluster.signal("b", signal.SIGKILL)
    cluster.wait("b")
    for each in waiting:
        each.cancel()
    del first, waiting, futures
    assert made.wait_until(lambda: client.run(made.what_is_left, workers=[a])[a][1] == 0)


def test_the_log_of_a_failed_transfer_keeps_no_array(cluster, client):
    """Dask keeps records of errors. They have tracebacks, whose frames have what was being sent."""
    a, b = cluster.addresses["a"], cluster.addresses["b"]
    future = client.submit(made.ones_and_death, workers=[a], pure=False)
    waiting = client.submit(len, future, workers=[b], pure=False)
    cluster.wait("b")
    assert made.wait_until(lambda: "failed during get data" in str(client.get_worker_logs(workers=[a])))
    waiting.cancel()
    del waiting, future
    assert made.wait_until(lambda: client.run(made.what_is_left, workers=[a])[a] <= (100_000, 0)), client.run(
        made.what_is_left, workers=[a]
    )


def test_a_worker_with_a_memory_limit_keeps_a_tenth_of_it_warm(cluster, client):
    def cache_limit():
        import sharedmem

        return sharedmem.memory_limit()["cache"]

    address = cluster.worker("limited", memory_limit="640MiB")
    assert made.wait_until(lambda: address in client.scheduler_info(n_workers=-1)["workers"])
    assert client.run(cache_limit, workers=[address])[address] == 64 << 20
    assert client.run(cache_limit, workers=[cluster.addresses["a"]])[cluster.addresses["a"]] > 64 << 20
