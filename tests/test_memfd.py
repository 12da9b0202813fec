"""Arenas in memfds, where the system has no System V memory; and no descriptor left for one."""

import textwrap

import pytest
from support import needs_namespaces, run_python

# No segment may be made: neither the arena's nor the census.
WITHOUT_SYSV = "echo 0 > /proc/sys/kernel/shmmni || exit 77"

HEAD = """
import os, pickle, resource, signal, subprocess, sys
import multiprocessing
from multiprocessing.reduction import ForkingPickler
import workers, sharedmem

def limit_descriptors(number):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))

def used():
    "The lowest descriptor that is free."
    lowest = os.dup(0)
    os.close(lowest)
    return lowest
"""


def check_without_sysv(code, *args, **options):
    """Runs `code` where only memfds can be had; its stdout, as text."""
    needs_namespaces("--ipc")
    status, out, err = run_python(
        HEAD + textwrap.dedent(code), *args, prefix=["unshare", "--ipc"], shell=WITHOUT_SYSV, **options
    )
    if status == 77:
        pytest.skip("the limit cannot be set here")
    assert (status, err.decode()) == (0, ""), out
    return out.decode().strip()


def test_it_is_a_memfd_and_closed_at_exec():
    code = """
    a = sharedmem.ones(1000)
    stats = sharedmem.stats()
    listing = subprocess.run(["ls", "-l", "/proc/self/fd"], capture_output=True, check=True, close_fds=False)
    print(stats["backing"], stats["participants"], b"sharedmem" in listing.stdout)
    """
    assert check_without_sysv(code) == "memfd 1 False"


@pytest.mark.parametrize("kind", ["fork", "spawn", "forkserver"])
def test_a_sender_that_is_killed(kind):
    code = """
    def main():
        kept = sharedmem.full(1000, 1.0)
        context = multiprocessing.get_context(sys.argv[1])
        ours, theirs = context.Pipe()
        child = context.Process(target=workers.send_full_and_die, args=(theirs, 1000, 3.0))
        child.start()
        theirs.close()
        child.join()
        sharedmem.collect()
        a = ours.recv()
        again = [sharedmem.full(1000, float(i)) for i in range(20)]
        stats = sharedmem.stats()
        print(child.exitcode, a.sum(), kept.sum(), stats["leases"], stats["backing"])
    if __name__ == "__main__":
        main()
    """
    assert check_without_sysv(code, kind) == "-9 3000.0 1000.0 0 memfd"


@pytest.mark.parametrize("related", [True, False])
def test_another_interpreter_loads_a_handle(related):
    code = """
    a = sharedmem.full(1000, 3.0)
    load = "import pickle, sys; a = pickle.loads(bytes.fromhex(sys.argv[1])); a += 1; print(a.sum())"
    env = None if sys.argv[1] == "True" else {"PATH": os.environ["PATH"]}
    said = subprocess.run([sys.executable, "-c", load, pickle.dumps(a).hex()], env=env, capture_output=True)
    print(said.stdout.decode().strip(), said.stderr.decode(), a.sum(), sharedmem.stats()["participants"])
    """
    assert check_without_sysv(code, related) == "4000.0  4000.0 1"


def test_an_extension_segment():
    code = """
    arrays = [sharedmem.full(1_000_000, i, "u1") for i in range(60)]
    def total(i):
        return int(arrays[i].sum())
    with multiprocessing.get_context("fork").Pool(2) as pool:
        made = pool.starmap(workers.full, [(1_000_000, float(i), "u1") for i in range(60)])
        assert pool.map(total, range(60)) == [i * 1_000_000 for i in range(60)]
        pool.close()
        pool.join()
    assert all((a == i).all() for i, a in enumerate(made))
    stats = sharedmem.stats()
    print(stats["backing"], stats["segments"] > 2)
    """
    assert check_without_sysv(code, SHAREDMEM_ARENA_SIZE="32MiB") == "memfd True"


def test_no_descriptor_to_make_an_arena():
    code = """
    before = used()
    limit_descriptors(before)
    try:
        sharedmem.new_arena()
    except OSError as error:
        print(type(error).__name__, error.errno, "memfd" in str(error))
    a = sharedmem.ones(1000)
    limit_descriptors(before + 20)
    sharedmem.new_arena()
    print(sharedmem.full(1000, 2.0).sum(), a.sum(), used() <= before + 2)
    """
    assert check_without_sysv(code).splitlines() == ["OSError 24 True", "2000.0 1000.0 True"]


def test_no_descriptor_to_extend_an_arena():
    code = """
    kept = [sharedmem.full(1_000_000, i, "u1") for i in range(5)]
    before = used()
    limit_descriptors(before)
    more = []
    try:
        for _ in range(60):
            more.append(sharedmem.zeros(1_000_000, "u1"))
    except (MemoryError, OSError) as error:
        print(type(error).__name__, len(str(error)) > 20, len(more) > 5)
    number = len(more)
    more.pop()
    more.append(sharedmem.ones(1_000_000, "u1"))
    limit_descriptors(before + 20)
    more += [sharedmem.zeros(1_000_000, "u1") for _ in range(40)]
    assert all((a == i).all() for i, a in enumerate(kept))
    print(len(more) - number, more[number - 1].all(), sharedmem.stats()["segments"] > 1)
    """
    said = check_without_sysv(code, SHAREDMEM_ARENA_SIZE="32MiB").splitlines()
    assert said[0] in ("MemoryError True True", "OSError True True")
    assert said[1] == "40 True True"


LOAD = """
data = bytes.fromhex(sys.argv[1])
before = used()
limit_descriptors(before)
for _ in range(3):
    try:
        pickle.loads(data)
    except (OSError, ValueError) as error:
        print(type(error).__name__, getattr(error, "errno", None))
limit_descriptors(before + 20)
print(pickle.loads(data).sum())
"""


def test_no_descriptor_to_load_a_handle():
    code = """
    a = sharedmem.full(1000, 3.0)
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ["PYTHONPATH"]}
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", sys.argv[1], pickle.dumps(a).hex()],
                              env=env, capture_output=True)
        print(done.stdout.decode().split(), done.stderr.decode(), a.sum())
    """
    for line in check_without_sysv(code, HEAD + LOAD).splitlines():
        assert line == "['OSError', '24', 'OSError', '24', 'OSError', '24', '3000.0']  3000.0"


def test_no_descriptor_to_attach_a_later_segment():
    """It is not taken for one that no longer exists."""
    code = """
    kept = sharedmem.ones(1000)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        before = used()
        limit_descriptors(before)
        data = os.read(reader, 1000)
        status = 1
        try:
            pickle.loads(data)
        except OSError as error:
            limit_descriptors(before + 20)
            if error.errno == 24 and (pickle.loads(data) == 59).all():
                status = 0
        finally:
            os._exit(status)
    arrays = [sharedmem.full(1_000_000, i, "u1") for i in range(60)]
    os.write(writer, pickle.dumps(arrays[-1]))
    print(os.waitpid(child, 0)[1], sharedmem.stats()["segments"] > 1)
    """
    assert check_without_sysv(code, SHAREDMEM_ARENA_SIZE="32MiB") == "0 True"
