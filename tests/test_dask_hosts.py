"""Clusters of Dask on two hosts, which network namespaces that are joined by a wire stand for; and by TLS."""

import contextlib
import subprocess

import pytest
from dask_cluster import Cluster
from support import needs_namespaces, needs_root
from test_dask_places import ANOTHER_USER, exchange

distributed = pytest.importorskip("distributed")

NEAR, FAR = "10.77.0.1", "10.77.0.2"  # what two hosts call each other


def enter(holder, *kinds):
    return ["nsenter", *(f"--{kind}=/proc/{holder.pid}/ns/{kind}" for kind in kinds)]


@contextlib.contextmanager
def two_hosts():
    """Command prefixes that run a program on one host or the other."""
    needs_namespaces("--net", "--ipc")
    with contextlib.ExitStack() as stack:
        holders = []
        for kinds in (("--net",), ("--net", "--ipc")):
            holder = subprocess.Popen(["unshare", *kinds, "sh", "-c", "echo; exec sleep 1000"], stdout=-1)
            stack.callback(holder.wait)
            stack.callback(holder.kill)
            stack.callback(holder.stdout.close)
            holder.stdout.readline()  # it has its namespaces
            holders.append(holder)
        near, far = (enter(holder, "net") for holder in holders)
        try:
            wire = f"ip link add near type veth peer name far netns {holders[1].pid}".split()
            made = subprocess.run([*near, *wire], capture_output=True, check=False, text=True)
        except FileNotFoundError:
            pytest.skip("needs ip, of iproute2")
        if made.returncode != 0:
            pytest.skip(f"no wire between network namespaces: {made.stderr}")
        for prefix, name, address in ((near, "near", NEAR), (far, "far", FAR)):
            subprocess.run([*prefix, "ip", "address", "add", f"{address}/24", "dev", name], check=True)
            for device in ("lo", name):
                subprocess.run([*prefix, "ip", "link", "set", device, "up"], check=True)
        yield near, enter(holders[1], "net", "ipc")


@needs_root
@pytest.mark.slow
@pytest.mark.parametrize("become", ["", ANOTHER_USER], ids=["the same user", "another user"])
def test_two_hosts_in_one_cluster(become):
    with two_hosts() as (near, far), Cluster(prefix=near, host=NEAR) as cluster:
        cluster.worker("a", prefix=near, host=NEAR)
        cluster.worker("b", prefix=near, host=NEAR)
        address = cluster.worker("far", prefix=far, host=FAR, become=become)
        assert address.startswith(f"sharedmem://{FAR}:")
        said = exchange(cluster, prefix=near)
    assert said["far"]["handles"] == said["far"]["opened"] == 0
    for name in ("a", "b", "client"):
        assert said[name]["opened"] > 5, said
    assert said["a"]["handles"] > 10, said
    assert said["b"]["handles"] > 10, said


def test_tls_by_the_preload(tmp_path, monkeypatch):
    """Messages are encrypted, and their arrays go by handle."""
    pytest.importorskip("cryptography")
    made = distributed.Security.temporary()
    files = {"tls_ca_file": "CA_FILE"}
    for role in ("scheduler", "worker", "client"):
        files |= {f"tls_{role}_{part}": f"{role.upper()}__{part.upper()}" for part in ("cert", "key")}
    for name, setting in files.items():
        path = tmp_path / name
        path.write_text(getattr(made, name))
        monkeypatch.setenv(f"DASK_DISTRIBUTED__COMM__TLS__{setting}", str(path))
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION", "True")
    preload = "import sharedmem.dask.preload"
    with Cluster("tls", preload) as cluster:
        assert cluster.address.startswith("tls://")
        cluster.worker("a")
        cluster.worker("b")
        said = exchange(cluster, preload)
    for name in ("a", "b", "client"):
        assert said[name]["opened"] > 5, said
    assert said["a"]["handles"] > 10, said
