"""What the tests of Dask run in a process of its own: `python dask_scenarios.py GROUP ADDRESS-OR-PROTOCOL`.

Prints one line of JSON: for each scenario of the group what went wrong, None if nothing did.
"""

import importlib.util
import json
import os
import sys
import time
import traceback

import dask
import distributed
import numpy as np
from dask_objects import KINDS, equals_object, one_object, wrong
from deadly import Deadly

import sharedmem
import sharedmem.dask

MIB = 1 << 20
LARGE = MIB // 8  # elements of 8 bytes

#: Seconds that processes have to give back what they had.
SOON = 60


# -- what tasks do


def ones(n=LARGE):
    return np.ones(n)


def shared_ones(n=LARGE):
    return sharedmem.ones(n)


def kind_and_sum(a):
    return sharedmem.is_shared(a), type(a).__name__, float(a.sum())


def add_in_place(a, value):
    a += value
    return float(a.sum())


def element(a):
    return float(a[0])


def same(obj):
    return obj


def wait_and_sum(a, seconds=0):
    time.sleep(seconds)
    return float(a.sum())


def my_tally():
    return sharedmem.dask.tally()


def number_spilled(dask_worker):
    return dask_worker.data.cumulative_metrics["disk-write", "count"]


def what_is_left():
    import gc

    gc.collect()
    sharedmem.collect()
    stats = sharedmem.stats()
    return stats["live_bytes"], stats["leases"]


def ones_and_death():
    return shared_ones(), Deadly()


# -- scenarios; each takes a client of a cluster of two workers


def workers_of(client):
    return sorted(client.scheduler_info(n_workers=-1)["workers"])


def a_large_argument_arrives_in_shared_memory(client):
    a, b = workers_of(client)[:2]
    made = client.submit(ones, workers=[a], pure=False)
    assert client.submit(kind_and_sum, made, workers=[b], pure=False).result() == (True, "ndarray", LARGE)
    made = client.submit(shared_ones, workers=[a], pure=False)
    assert client.submit(kind_and_sum, made, workers=[b], pure=False).result() == (True, "ndarray", LARGE)


def what_was_allocated_by_us_is_shared_by_all(client):
    a, b = workers_of(client)[:2]
    made = client.submit(shared_ones, workers=[a], pure=False)
    for where in (b, a):
        client.submit(add_in_place, made, 1, workers=[where], pure=False).result()
    assert client.submit(element, made, workers=[a], pure=False).result() == 3
    assert client.submit(element, made, workers=[b], pure=False).result() == 3
    got = made.result()
    assert got[0] == 3
    got += 1
    assert client.submit(element, made, workers=[a], pure=False).result() == 4


def plain_arrays_are_nobody_elses(client):
    a, b = workers_of(client)[:2]
    made = client.submit(ones, workers=[a], pure=False)
    added = client.submit(add_in_place, made, 5, workers=[b], pure=False)
    assert added.result() == 6 * LARGE
    got = made.result()
    got += 7
    assert client.submit(element, made, workers=[a], pure=False, allow_other_workers=False).result() == 1


def what_was_carried_is_copied_when_it_is_passed_on(client):
    """The client gets it from the worker that got it from the one that made it; each has its own."""
    a, b = workers_of(client)[:2]
    made = client.submit(ones, workers=[a], pure=False)
    passed = client.submit(same, made, workers=[b], pure=False)
    distributed.wait(passed)
    again = client.submit(add_in_place, passed, 1, workers=[a], pure=False)
    assert again.result() == 2 * LARGE
    mine = passed.result()
    mine += 10
    assert client.submit(element, passed, workers=[b], pure=False).result() == 1


def import_all_kinds():
    """By one thread: two that import SciPy at once, one of them to load an object, can be a deadlock."""
    for name in KINDS:
        one_object(name, False)


def objects_of_all_kinds_are_equal(client):
    client.run(import_all_kinds)
    a, b = workers_of(client)[:2]
    cases = [(name, shared) for name in KINDS for shared in (False, True)]
    made = [client.submit(one_object, *case, workers=[a], pure=False) for case in cases]
    there = [
        client.submit(equals_object, each, name, workers=[b], pure=False)
        for each, (name, _) in zip(made, cases, strict=True)
    ]
    assert wrong(cases, client.gather(there)) == [], "worker to worker"
    del there
    got = client.gather(made)
    del made
    here = [equals_object(each, name) for each, (name, _) in zip(got, cases, strict=True)]
    assert wrong(cases, here) == [], "to the client"
    del got
    given = [
        client.submit(equals_object, one_object(*case), case[0], workers=[b], pure=False) for case in cases
    ]
    assert wrong(cases, client.gather(given)) == [], "as an argument"


def small_arrays_can_be_written(client):
    a, b = workers_of(client)[:2]
    made = client.submit(one_object, "own class", False, workers=[a], pure=False)
    small = client.submit(small_of, made, workers=[b], pure=False)
    assert small.result()


def small_of(own):
    own.more["b"][0][:] = 5
    return own.more["b"][0].flags.writeable


def scatter_and_arguments(client):
    a, b = workers_of(client)[:2]
    private, shared = np.full(LARGE, 2.0), sharedmem.full(LARGE, 3.0)
    for direct in (False, True):
        for broadcast in (False, True):
            for source, value in ((private, 2), (shared, 3)):
                sent = client.scatter(source, direct=direct, broadcast=broadcast, hash=False)
                sums = [client.submit(wait_and_sum, sent, workers=[w], pure=False).result() for w in (a, b)]
                assert sums == [value * LARGE] * 2, (direct, broadcast, value)
    for source, value in ((private, 2), (shared, 3)):
        assert client.submit(wait_and_sum, source, pure=False).result() == value * LARGE
        assert client.gather(client.map(wait_and_sum, [source, source], pure=False)) == [value * LARGE] * 2
    sent = client.scatter(shared, hash=False)
    client.submit(add_in_place, sent, 1, pure=False).result()
    assert shared[0] == 4
    sent = client.scatter(private, hash=False)
    client.submit(add_in_place, sent, 1, pure=False).result()
    assert private[0] == 2


def handles_were_sent(client):
    """The last of its group: none of what was checked before went as bytes."""
    for tally in client.run(my_tally).values():
        assert tally["handles"] > 10, tally
        assert tally["opened"] > 10, tally
    assert sharedmem.dask.tally()["opened"] > 10


def nothing_is_left(client):
    def left():
        return [what_is_left(), *client.run(what_is_left).values()]

    def settled():
        client.run(lambda: None)
        return all(nbytes < 100_000 and leases == 0 for nbytes, leases in left())

    assert wait_until(settled), left()


def wait_until(condition, seconds=SOON):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def spilled_objects_come_back(client):
    a, b = workers_of(client)[:2]
    cases = [(name, shared) for name in KINDS for shared in (False, True)]
    made = [client.submit(one_object, *case, workers=[a], pure=False) for case in cases]
    distributed.wait(made)
    for where in (b, a):
        there = [
            client.submit(equals_object, each, name, workers=[where], pure=False)
            for each, (name, _) in zip(made, cases, strict=True)
        ]
        assert wrong(cases, client.gather(there)) == [], where
    here = [equals_object(each, name) for each, (name, _) in zip(client.gather(made), cases, strict=True)]
    assert wrong(cases, here) == []


def rechunk_and_shuffle(client):
    import dask.array as da

    expected = np.asarray(shared_grid())
    for method, disk in (("p2p", True), ("p2p", False), ("tasks", True)):
        with dask.config.set({"array.rechunk.method": method, "distributed.p2p.storage.disk": disk}):
            x = da.from_delayed(dask.delayed(shared_grid)(), expected.shape, dtype="f8").rechunk((100, 500))
            y = x.rechunk((500, 40)).rechunk((250, 250))
            assert np.array_equal(y.compute(), expected), (method, disk)
    if importlib.util.find_spec("pandas") and importlib.util.find_spec("pyarrow"):
        import dask.dataframe as dd
        import pandas

        v = sharedmem.array(np.arange(100_000.0))
        frame = pandas.DataFrame({"k": np.arange(len(v)) % 97, "v": np.asarray(v)}, copy=False)
        for disk in (True, False):
            with dask.config.set({"distributed.p2p.storage.disk": disk}):
                shuffled = dd.from_pandas(frame, npartitions=4).shuffle("k").compute()
            assert float(shuffled.v.sum()) == float(v.sum()), disk
            assert len(shuffled) == len(frame)


def shared_grid():
    return sharedmem.array(np.arange(250_000.0).reshape(500, 500))


BASIC = (
    a_large_argument_arrives_in_shared_memory,
    what_was_allocated_by_us_is_shared_by_all,
    plain_arrays_are_nobody_elses,
    what_was_carried_is_copied_when_it_is_passed_on,
    small_arrays_can_be_written,
    scatter_and_arguments,
    objects_of_all_kinds_are_equal,
    handles_were_sent,
    nothing_is_left,
)
GROUPS = {
    "basic": BASIC,
    "spill": (spilled_objects_come_back, nothing_is_left),
    "rechunk": (rechunk_and_shuffle, nothing_is_left),
}


def run(scenarios, client):
    said = {}
    for each in scenarios:
        try:
            each(client)
        except Exception:
            said[each.__name__] = traceback.format_exc()
        else:
            said[each.__name__] = None
    return said


def main(group, protocol):
    # It drops copies that two workers have, after two seconds: scenarios write into one of them.
    dask.config.set({"distributed.scheduler.active-memory-manager.start": False})
    if group == "spill":
        dask.config.set({"distributed.worker.memory.target": 1e-9, "distributed.worker.memory.spill": 1e-9})
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, protocol=protocol, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        said = run(GROUPS[group], client)
    print(json.dumps(said))


if __name__ == "__main__":
    # Functions of this module are found by its name, in workers too.
    import dask_scenarios

    dask_scenarios.main(*sys.argv[1:])
    assert os.environ.get("SHAREDMEM_ARENA")
