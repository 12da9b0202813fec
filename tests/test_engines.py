"""With only `import sharedmem`, engines carry the data of shared arrays, not handles that become stale."""

import shutil
import subprocess
import sys

import pytest
from support import check_python, run_python

IMPORTS = pytest.mark.parametrize(
    "imports", ["import sharedmem, {}", "import {}, sharedmem"], ids=["the library first", "the library last"]
)


def program(imports, engine, code):
    return imports.format(engine) + "\nimport numpy as np\n" + code


def output(imports, engine, code, folder):
    """What a program prints. Engines log to stderr as they please, and keep files in the home folder."""
    status, out, err = run_python(
        program(imports, engine, code), shell=f"cd {folder}", HOME=str(folder), **QUIET
    )
    assert status == 0, err.decode(errors="replace")
    return out.decode().strip()


QUIET = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}

# What is sent: arrays in each kind of container, and what is computed from it on the other side.
OBJECTS = """
def make(n=3000):
    import sharedmem
    a = sharedmem.full(n, 3.0)
    return {"plain": a, "view": (a[::-2], [a.reshape(2, -1)]), "objects": np.array([a, None], object)}

def total(made):
    arrays = made["plain"], made["view"][0], made["view"][1][0], made["objects"][0]
    return float(sum(array.sum() for array in arrays))

expected = 3.0 * (3000 + 1500 + 3000 + 3000)
"""

DASK = (
    OBJECTS
    + """
if __name__ == "__main__":
    import dask
    from dask.distributed import Client, LocalCluster
    dask.config.set({"distributed.worker.memory.target": TARGET, "distributed.worker.memory.spill": TARGET})
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        here, there = client.scheduler_info()["workers"]
        made = client.submit(make, workers=[here], pure=False)
        assert client.submit(total, made, workers=[there]).result() == expected, "worker to worker"
        again = client.submit(total, made, workers=[here], pure=False)
        assert again.result() == expected, "in place, perhaps from the disk"
        assert total(made.result()) == expected, "gathered"
        asked = client.submit(total, make(), workers=[there], pure=False)
        assert asked.result() == expected, "argument in the graph"
        for options in ({"hash": False}, {"hash": False, "broadcast": True}, {"hash": False, "direct": True}):
            scattered = client.scatter(make(), **options)
            assert client.submit(total, scattered, workers=[there]).result() == expected, options
        bare = client.submit(lambda: make()["plain"], workers=[here], pure=False)
        assert client.submit(np.sum, bare, workers=[there]).result() == 9000, "a bare array"
        objects = client.submit(lambda: make()["objects"], workers=[here], pure=False)
        asked = client.submit(lambda a: a[0].sum(), objects, workers=[there])
        assert asked.result() == 9000, "an object array"
        print("done")
"""
)


@pytest.mark.parametrize("target", ["1e-9", "False"], ids=["spilled", "in memory"])
@IMPORTS
def test_dask_distributed(imports, target, tmp_path):
    pytest.importorskip("distributed")
    assert output(imports, "distributed", DASK.replace("TARGET", target), tmp_path) == "done"


@IMPORTS
def test_dask_rechunks(imports, tmp_path):
    pytest.importorskip("distributed")
    pytest.importorskip("dask.array")
    code = """
if __name__ == "__main__":
    import dask, dask.array
    from dask.distributed import Client, LocalCluster
    def block(info):
        import sharedmem
        (low, high), _ = info[None]["array-location"]
        return sharedmem.array(np.arange(low, high, dtype=float)[:, None] + np.zeros(200))
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        for disk in (True, False):
            dask.config.set({"distributed.p2p.storage.disk": disk, "array.rechunk.method": "p2p"})
            make = lambda block_info=None: block(block_info)
            x = dask.array.map_blocks(make, chunks=((50,) * 4, (200,)), dtype=float)
            assert (x.rechunk((200, 40)).compute() == np.arange(200.0)[:, None]).all()
        print("done")
"""
    assert output(imports, "distributed", code, tmp_path) == "done"


@IMPORTS
def test_dask_with_processes(imports, tmp_path):
    pytest.importorskip("dask")
    code = (
        OBJECTS
        + """
if __name__ == "__main__":
    import dask
    made = dask.delayed(make)()
    assert dask.delayed(total)(made).compute(scheduler="processes") == expected
    assert total(made.compute(scheduler="processes")) == expected
    assert dask.delayed(total)(make()).compute(scheduler="processes") == expected
    print("done")
"""
    )
    assert output(imports, "dask.multiprocessing", code, tmp_path) == "done"


@IMPORTS
def test_ray(imports, tmp_path):
    pytest.importorskip("ray")
    code = (
        OBJECTS
        + """
import ray
ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
made = ray.remote(make).remote()
assert total(ray.get(made)) == expected, "the result of a task"
assert ray.get(ray.remote(total).remote(made)) == expected, "a result as an argument"
assert ray.get(ray.remote(total).remote(make())) == expected, "an argument"
assert total(ray.get(ray.put(make()))) == expected, "put"
captured = make()
assert ray.get(ray.remote(lambda: total(captured)).remote()) == expected, "captured by a function"
with open("saved", "wb") as file:
    ray.cloudpickle.dump(make(), file)
with open("saved", "rb") as file:
    assert total(ray.cloudpickle.load(file)) == expected, "saved in a file"
bare = ray.get(ray.put(make()["plain"]))
assert type(bare) is np.ndarray and bare.sum() == 9000
ray.shutdown()
print("done")
"""
    )
    assert output(imports, "ray", code, tmp_path) == "done"


MPI = (
    OBJECTS
    + """
from mpi4py.util import pkl5
for world in (MPI.COMM_WORLD, pkl5.Intracomm(MPI.COMM_WORLD)):
    if world.rank == 0:
        world.send(make(), dest=1)
        assert world.bcast(make()) is not None
    else:
        assert total(world.recv(source=0)) == expected
        assert total(world.bcast(None)) == expected
    gathered = world.gather(make(), root=1)
    assert world.rank == 0 or [total(made) for made in gathered] == [expected, expected]
if world.rank == 1:
    print("done")
"""
)


@IMPORTS
def test_mpi(imports, tmp_path):
    pytest.importorskip("mpi4py")
    mpirun = shutil.which("mpirun")
    if mpirun is None:
        pytest.skip("needs mpirun")
    code = program(imports, "mpi4py.MPI", "from mpi4py import MPI\n" + MPI)
    command = [
        mpirun,
        "--allow-run-as-root",
        "--oversubscribe",
        "-n",
        "2",
        sys.executable,
        "-m",
        "mpi4py",
        "-c",
        code,
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == ["done"], done.stderr


def test_mpi_keeps_the_pickler_that_a_program_has_chosen():
    pytest.importorskip("mpi4py")
    code = """
    import cloudpickle
    from mpi4py import MPI
    MPI.pickle.__init__(cloudpickle.dumps, cloudpickle.loads)
    import sharedmem
    print(MPI.pickle.loads(MPI.pickle.dumps(lambda: 7))())
    """
    assert check_python(code) == "7"
