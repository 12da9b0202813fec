"""Clusters of Dask whose processes are in several places: handles within one, values between them."""

import json

import pytest
from dask_cluster import Cluster
from support import check_python, needs_namespaces, needs_root, run_python

distributed = pytest.importorskip("distributed")

APART = ["unshare", "--ipc"]
ANOTHER_USER = (
    "import os; os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)"
)

# Every worker makes objects that every other one checks, and a broadcast goes to all. Prints tallies by name.
EXCHANGE = """
import json, sys
PRELOAD
import distributed
import numpy as np
import dask_objects, dask_scenarios as made, sharedmem.dask
kinds = ("array", "tuple", "own class", "reversed", "masked")
with distributed.Client(sys.argv[1], timeout="60s") as client:
    workers = client.scheduler_info(n_workers=-1)["workers"]
    names = {info["name"]: address for address, info in workers.items()}
    pairs = [(s, t) for s in names.values() for t in names.values()]
    cases = [(s, t, kind, shared) for s, t in pairs for kind in kinds for shared in (False, True)]
    there = [
        client.submit(
            dask_objects.equals_object,
            client.submit(dask_objects.one_object, kind, shared, workers=[s], pure=False),
            kind, workers=[t], pure=False)
        for s, t, kind, shared in cases]
    assert dask_objects.wrong(cases, client.gather(there)) == []
    here = client.gather([
        client.submit(dask_objects.one_object, "tuple", shared, workers=[s], pure=False)
        for s in names.values() for shared in (False, True)])
    assert all(dask_objects.equals_object(each, "tuple") for each in here)
    del there, here
    for direct in (False, True):
        sent = client.scatter(np.full(made.LARGE, 2.0), broadcast=True, direct=direct, hash=False)
        for target in names.values():
            total = client.submit(made.wait_and_sum, sent, workers=[target], pure=False).result()
            assert total == 2 * made.LARGE
    argument = client.submit(made.wait_and_sum, np.ones(made.LARGE), pure=False)
    assert argument.result() == made.LARGE
    tallies = client.run(made.my_tally)
    said = {name: tallies[address] for name, address in names.items()}
    said["client"] = sharedmem.dask.tally()
print(json.dumps(said))
"""


def exchange(cluster, preload="", **options):
    """What went by handle in each worker, and in a client, that exchanged everything with all."""
    status, out, err = run_python(EXCHANGE.replace("PRELOAD", preload), cluster.address, **options)
    assert status == 0, err.decode()
    return json.loads(out.decode().splitlines()[-1])


@needs_root
@pytest.mark.parametrize("far", ["IPC namespace", "user"])
def test_two_places_in_one_cluster(far):
    needs_namespaces("--ipc")
    options = {"prefix": APART} if far == "IPC namespace" else {"become": ANOTHER_USER}
    with Cluster() as cluster:
        cluster.worker("a")
        cluster.worker("b")
        cluster.worker("far", **options)
        said = exchange(cluster)
    assert said["far"]["handles"] == said["far"]["opened"] == 0
    for name in ("a", "b", "client"):
        assert said[name]["opened"] > 5, said
    assert said["a"]["handles"] > 10, said
    assert said["b"]["handles"] > 10, said


@needs_root
def test_a_client_in_another_place():
    needs_namespaces("--ipc")
    with Cluster() as cluster:
        cluster.worker("a")
        cluster.worker("b")
        said = exchange(cluster, prefix=APART)
    assert said["client"]["handles"] == said["client"]["opened"] == 0
    assert said["a"]["handles"] > 10, said


@pytest.mark.parametrize("everywhere", [True, False], ids=["everywhere", "not in the client"])
def test_the_preload_for_tcp(everywhere):
    preload = "import sharedmem.dask.preload"
    with Cluster("tcp", preload) as cluster:
        cluster.worker("a")
        cluster.worker("b")
        said = exchange(cluster, preload if everywhere else "")
    assert said["a"]["handles"] > 10, said
    assert (said["client"]["opened"] > 5) == everywhere, said


def test_without_any_line_values_travel():
    with Cluster("tcp") as cluster:
        cluster.worker("a")
        cluster.worker("b")
        said = exchange(cluster)
    assert {tally["handles"] for tally in said.values()} == {0}


def test_a_size_from_which_on_buffers_are_carried():
    with Cluster() as cluster:
        cluster.worker("a", SHAREDMEM_CARRY="0")
        cluster.worker("b")
        said = exchange(cluster)
    assert said["a"]["carried"] == 0, said
    assert said["a"]["handles"] > 0, said
    assert said["b"]["carried"] > 0, said


def test_memory_that_cannot_be_attached_means_values_and_one_warning():
    """A worker in the same place that cannot attach another's memory: as where all arenas are attached."""
    broken = """
import sharedmem._transfers.probing as probing
import sharedmem._handles
def refused(*args):
    raise OSError("no room for another arena")
probing._load = refused
"""
    with Cluster() as cluster:
        cluster.worker("a")
        cluster.worker("b", become=broken)
        said = exchange(cluster)
    assert said["b"]["handles"] == said["b"]["opened"] == 0, said


MISSING = """
import sys, warnings
import distributed
from distributed.comm import core, registry, tcp
del tcp.TCPBackend._connector_class
tcp.TCPBackend._get_connector = None
import sharedmem.dask
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print(sharedmem.dask.install(), len(caught), "_connector_class" in str(caught[0].message))
"""


def test_a_version_without_the_hooks_is_left_alone():
    assert check_python(MISSING) == "False 1 True"


def test_without_distributed_the_error_names_the_extra():
    code = """
    import sys
    sys.modules["distributed"] = None
    import sharedmem.dask
    for function in (sharedmem.dask.install, sharedmem.dask.backend, sharedmem.dask.tally):
        try:
            function()
        except ImportError as error:
            print("numpy-sharedmem[dask]" in str(error))
    """
    assert check_python(code).split() == ["True"] * 3


def test_importing_sharedmem_imports_none_of_it():
    code = "import sys, sharedmem; print([m for m in sys.modules if '_engines' in m or m.startswith('dask')])"
    assert check_python(code) == "[]"


def test_the_backend_is_found_by_dasks_entry_point():
    code = """
    from distributed.comm.registry import get_backend
    print(type(get_backend("sharedmem")).__name__)
    """
    assert check_python(code) == "SharedMemoryBackend"
