"""Ray in several places: arrays are shared within one and copied between them; what is left in the end."""

import json
import signal
import subprocess
import sys
import tempfile
import time

import pytest
from support import TESTS, TIMEOUT, check_python, environment, needs_namespaces

ray = pytest.importorskip("ray")

QUIET = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": TESTS}

APART = ["unshare", "--ipc"]

# Starts a node here and prints its address; does the rest as soon as a second node is there. In the end it
# starts a driver in a third place, whose program is the first argument.
EXCHANGE = """
import json, os, subprocess, sys, time
import ray, sharedmem
from ray_actors import LARGE, Owner, User, check, objects, start, until

info = ray.init("local", num_cpus=2, resources={"near": 9}, include_dashboard=False, log_to_driver=False,
                configure_logging=False, object_store_memory=80 << 20, _temp_dir=sys.argv[2])
print(info.address_info["gcs_address"], flush=True)
until(lambda: sum(node["Alive"] for node in ray.nodes()) == 2, "the second node")
owners = {place: start(Owner, resources={place: 1}) for place in ("near", "far")}
users = {place: start(User, resources={place: 1}) for place in ("near", "far")}
said = {}
for a, owner in owners.items():
    for b, user in users.items():
        ray.get(owner.clear.remote())
        ref = owner.share.remote()
        kind, shared, total = ray.get(user.add.remote(ref))
        assert (kind, shared, total) == ("SharedArray", True, LARGE)
        assert ray.get(user.check.remote(owner.objects.remote())) == []
        said[f"{a} to {b}"] = ray.get(owner.sum.remote()) == LARGE
    ray.get(ref)[:] = 7
    said[f"{a} to the driver"] = ray.get(owner.sum.remote()) == 7 * LARGE
    assert check(ray.get(owner.objects.remote())) == []
mine = sharedmem.zeros(LARGE)
for b, user in users.items():
    mine[:] = 0
    ref = sharedmem.ray.put(mine)
    assert ray.get(user.add.remote(ref))[2] == LARGE
    assert ray.get(user.get_and_add.remote([ref]))[0][2] in (LARGE, 2 * LARGE)
    said[f"the driver to {b}"] = bool(mine.sum() == 2 * LARGE)

    @ray.remote(num_cpus=0, resources={b: 1})
    def task(refs):
        return User().add(ray.get(refs[0]))[2]

    before = mine[0]
    assert ray.get(task.remote([ref])) == before * LARGE + LARGE
    said[f"the driver to a task, {b}"] = bool(mine[0] == before + 1)
result = ray.get(ray.remote(num_cpus=0, resources={"far": 1})(lambda: sharedmem.full(9, 3.0)).remote())
assert (type(result).__name__, result.sum()) == ("ndarray", 27)

code, address = sys.argv[1], info.address_info["gcs_address"]
env = {name: value for name, value in os.environ.items() if name != "SHAREDMEM_ARENA"}
command = ["unshare", "--ipc", sys.executable, "-c", code, address]
third = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)
assert third.returncode == 0, third.stderr
said.update(json.loads(third.stdout.splitlines()[-1]))
print(json.dumps(said), flush=True)
sys.stdin.read()  # the second node ends first
ray.shutdown()
"""

THIRD = """
import json, sys, warnings
import ray, sharedmem
from ray_actors import LARGE, User, check, objects, start

ray.init(sys.argv[1], log_to_driver=False, configure_logging=False)
a = sharedmem.zeros(LARGE)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    refs = [sharedmem.ray.put(a), sharedmem.ray.put(objects())]
warned = [str(each.message) for each in said if "workers on this node cannot use" in str(each.message)]
for place in ("near", "far"):
    user = start(User, resources={place: 1})
    assert ray.get(user.keep.remote(refs[0])) == 0
    assert ray.get(user.check.remote(refs[1], False)) == []
a += 1
assert ray.get(refs[0])[0] == 0
try:
    ray.put(a, _tensor_transport="sharedmem")
except RuntimeError as error:
    assert "sharedmem.ray.put stores values" in str(error)
    print(json.dumps({"warnings there": len(warned)}))
"""


def test_nodes_and_drivers_in_three_places():
    needs_namespaces("--ipc")
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        env = environment(related=False, HOME=folder, **QUIET)
        driver = subprocess.Popen(
            [sys.executable, "-c", EXCHANGE, THIRD, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            text=True,
            start_new_session=True,
        )
        node = None
        try:
            address = driver.stdout.readline().strip()
            assert address, driver.communicate()[1]
            command = [
                *APART,
                sys.executable,
                "-m",
                "ray.scripts.scripts",
                "start",
                "--block",
                "--num-cpus=2",
            ]
            options = ["--address", address, "--resources", '{"far": 9}', "--object-store-memory=80000000"]
            node = subprocess.Popen(
                [*command, *options], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            said = driver.stdout.readline()
            node.send_signal(signal.SIGTERM)
            node.wait(TIMEOUT)
            node = None
            _, errors = driver.communicate("", TIMEOUT)
            assert driver.returncode == 0, errors
        finally:
            for each in (node, driver):
                if each is not None and each.poll() is None:
                    each.kill()
                    each.wait()
    shared = {name for name, value in json.loads(said).items() if value is True}
    assert shared == {
        "near to near",
        "far to far",
        "near to the driver",
        "the driver to near",
        "the driver to a task, near",
    }
    assert json.loads(said)["warnings there"] == 1


LEAVES = """
import sys
from ray_actors import LARGE, Owner, User, ray, sharedmem, start
ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False,
         object_store_memory=80 << 20, _temp_dir=sys.argv[1])
owner, user = start(Owner), start(User)
refs = [owner.make.remote(), sharedmem.ray.put(sharedmem.ones(LARGE))]
assert [ray.get(user.keep.remote(ref)) for ref in refs] == [LARGE, LARGE]
ray.kill(owner)
ray.shutdown()
print("done")
"""


def segments():
    said = subprocess.run(["ipcs", "-m"], capture_output=True, text=True, check=True, timeout=TIMEOUT)
    return said.stdout.splitlines()


def test_nothing_is_left_in_the_system():
    before = segments()
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        assert check_python(LEAVES, folder, HOME=folder, **QUIET) == "done"
        end = time.monotonic() + TIMEOUT
        while len(segments()) > len(before):
            assert time.monotonic() < end, segments()
            time.sleep(0.1)
