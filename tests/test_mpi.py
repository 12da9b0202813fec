"""`sharedmem.mpi`: one array for all ranks of a node. It needs mpi4py and mpirun: .ci/matrix/engines."""

import shutil
import subprocess
import sys
import textwrap

import pytest
from support import TIMEOUT, check_python, environment, needs_namespaces

try:
    import mpi4py
except ImportError:
    mpi4py = None

needs_mpi = pytest.mark.skipif(
    mpi4py is None or shutil.which("mpirun") is None, reason="needs mpi4py and mpirun"
)

START = """
import gc, sys, time
import numpy as np
import sharedmem
from mpi4py import MPI
from sharedmem import mpi

world = MPI.COMM_WORLD
me, size = world.rank, world.size

def raised(call, *args, **keywords):
    # What each rank gets from a call that is wrong.
    try:
        call(*args, **keywords)
    except Exception as error:
        return world.allgather((type(error).__name__, str(error)))
    return world.allgather(None)
"""


def run(code, folder, *groups):
    """What a program prints. Each group: a number of ranks, and a command that its ranks are started by."""
    program = START + textwrap.dedent(code)
    command = [
        shutil.which("mpirun"),
        "--allow-run-as-root",
        "--oversubscribe",
        "--mca",
        "mpi_yield_when_idle",
        "1",
    ]
    for number, prefix in groups:
        command += ["-n", str(number), *prefix, sys.executable, "-m", "mpi4py", "-c", program, ":"]
    done = subprocess.run(
        command[:-1],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        env=environment(related=False, TMPDIR=folder),  # mpirun keeps files there, which are named by pids
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@needs_mpi
def test_one_array_for_all_ranks(tmp_path):
    code = """
    node = mpi.node(world)
    assert (node.rank, node.size) == (me, size)
    a = mpi.empty((size, 1000), "i8", node)
    assert isinstance(a, sharedmem.SharedArray) and a.shape == (size, 1000) and a.dtype == np.int64
    a[me] = me
    node.Barrier()
    assert (a == np.arange(size)[:, None]).all()
    assert mpi.empty(7, float, node, "F").shape == mpi.empty(np.array([7]), float, node).shape == (7,)
    for shape, dtype in (((), ">i4"), ((0, 3), "f8"), ((2, 0), "i2, S3"), (5, "M8[ns]")):
        b = mpi.bcast_world(np.zeros(shape, dtype) if me == 1 else None, 1, world, node)
        assert b.shape == np.zeros(shape).shape and b.dtype == dtype and type(b) is sharedmem.SharedArray
    assert mpi.empty((3, 4), "c8", node, order="F").flags.f_contiguous
    with sharedmem.pickle_by_value():
        assert sharedmem.is_shared(mpi.empty(10, float, node))
    # From each root: the same memory, which outlives its creator.
    for root in range(size):
        for make in (sharedmem.full, np.full):
            made = make(5000, float(root)) if me == root else None
            b = mpi.bcast(made, root, node)
            if me == root:
                assert np.shares_memory(b, made) == (make is sharedmem.full)
                del made, b
                gc.collect()
            else:
                b[me] = 100 + me
            node.Barrier()
            if me != root:
                assert (b[size:] == root).all() and all(b[r] == 100 + r for r in range(size) if r != root)
                del b
            node.Barrier()
    # Views keep their strides, protected arrays their protection.
    whole = sharedmem.full((10, 10), 1.0) if me == 1 else None
    part = mpi.bcast(whole[::2, 3] if me == 1 else None, 1, node)
    part[me] = 5.0
    node.Barrier()
    assert me != 1 or whole[:, 3].sum() == 5 + 5 * size + (5 - size)
    given = mpi.bcast(sharedmem.readonly(sharedmem.ones(3)) if me == 0 else "not looked at", 0, node)
    assert not given.flags.writeable and given.sum() == 3
    import tempfile
    with tempfile.NamedTemporaryFile() as file:
        mapped = np.memmap(file.name, "u1", "w+", shape=50) if me == 0 else None
        assert mpi.bcast(mapped, 0, node).tolist() == [0] * 50
    # What is sent by MPI are values.
    if me == 0:
        world.send(sharedmem.full(1000, 4.0), 1)
        gc.collect()
    elif me == 1:
        time.sleep(0.2)
        assert world.recv(source=0).sum() == 4000
    del a, part, whole, given
    node.Free()
    gc.collect()
    world.Barrier()
    sharedmem.collect()
    stats = sharedmem.stats()
    assert stats["live_bytes"] == 0 and stats["leases"] == 0, stats
    if me == 0:
        print("done")
    """
    assert run(code, tmp_path, (3, ())) == ["done"]


@needs_mpi
def test_what_is_wrong_at_one_rank_is_an_error_at_all(tmp_path):
    code = """
    node = mpi.node(world)
    pair = world.Split(me // 2, me)  # without the last one
    last = size - 1
    wrong = []
    for call, kind, text in (
        (lambda: mpi.empty(10, object if me == 0 else float, node), "TypeError", "object"),
        (lambda: mpi.empty(10, float if me == last else "f4", node), "ValueError", "must be the same"),
        (lambda: mpi.empty(10 + me, float, node), "ValueError", "must be the same at all ranks"),
        (lambda: mpi.empty("10" if me == 0 else 10, float, node), "TypeError", "str"),
        (lambda: mpi.empty(-1, float, node), "ValueError", "negative"),
        (lambda: mpi.empty(1 << 55, float, node), "MemoryError", ""),
        (lambda: mpi.bcast(np.ones(3), me, node), "ValueError", "root must be the same"),
        (lambda: mpi.bcast(np.ones(3), me // last * size, node), "ValueError", f"root is rank {size}"),
        (lambda: mpi.bcast(np.ones(3), -1, node), "ValueError", "root is rank -1"),
        (lambda: mpi.bcast(np.ones(3), 0.0 if me == 0 else 0, node), "TypeError", "float"),
        (lambda: mpi.bcast(None, 0, node), "TypeError", "not None"),
        (lambda: mpi.bcast(np.ma.ones(3), 0, node), "TypeError", "MaskedArray"),
        (lambda: mpi.bcast(np.array([None]), 0, node), "TypeError", "object"),
        (lambda: mpi.bcast_world(np.ones(3), me, world), "ValueError", "root must be the same"),
        (lambda: mpi.bcast_world(None, 1, world), "TypeError", "not None"),
        (lambda: mpi.bcast_world(np.ones(3), 0, world, "node"), "TypeError", "MPI.Intracomm"),
        (lambda: mpi.empty(3, float, node, "C" if me == 0 else lambda: 0), "", "pickle"),
        (lambda: mpi.empty(3, float, node, "K"), "ValueError", "order"),
        (lambda: mpi.bcast_world(np.ones(3), 0, pair, node), "ValueError", "ranks that comm has not"),
        (lambda: mpi.bcast_world(np.ones(3), 0, world, MPI.COMM_SELF if me else node), "ValueError", "fit"),
        (lambda: mpi.node(MPI.COMM_NULL), "TypeError", "MPI.Intracomm"),
        (lambda: mpi.empty(3, float, None), "TypeError", "MPI.Intracomm"),
    ):
        said = raised(call)
        if not all(each and kind in each[0] and text in each[1] for each in said):
            wrong.append((said, kind, text))
    assert not wrong, wrong
    freed = world.Dup()
    freed.Free()
    assert all("COMM_NULL" in each[1] for each in raised(mpi.node, freed))
    # Whoever has made it has the error itself, the others what it says.
    said = raised(mpi.empty, "10" if me == 0 else 10, float, node)
    assert [each[1].startswith("rank 0 of 3: TypeError: ") for each in said] == [False, True, True]
    # Nothing is out of step afterwards.
    assert mpi.bcast(np.ones(3) if me == 1 else None, 1, node).sum() == 3
    if me == 0:
        print("done")
    """
    assert run(code, tmp_path, (3, ())) == ["done"]


@needs_mpi
def test_ranks_that_share_no_memory(tmp_path):
    """Two ranks here, and two of which each has an IPC namespace of its own."""
    needs_namespaces("--ipc")
    code = """
    mpi._MOST_BYTES = 5000  # of one message; arrays have 96 000
    places = world.allgather(sharedmem.place())
    node = mpi.node(world)
    assert node.size == places.count(places[me])
    assert len(set(places)) == 3
    for root in range(size):
        for order in "CF":
            for writeable in (True, False):
                a = np.asarray(np.arange(12000.0).reshape(30, -1), order=order) + root if me == root else None
                if me == root and not writeable:
                    a = sharedmem.readonly(sharedmem.asshared(a))
                b = mpi.bcast_world(a, root, world, node if order == "C" else None)
                assert sharedmem.is_shared(b) and b.flags.writeable == writeable
                assert (b == np.arange(12000.0).reshape(30, -1) + root).all()
                assert b.flags.c_contiguous if order == "C" else b.flags.f_contiguous
                # One copy for each node: its first rank writes, and its own ranks see it, no other.
                node.Barrier()
                if writeable and node.rank == 0:
                    b[0, 0] = 1000 + me
                world.Barrier()
                first = min(node.allgather(me))
                assert b[0, 0] == (1000 + first if writeable else root)
                world.Barrier()
    # A communicator that is made for one call is freed at its end, also where that raises.
    new_node, made = mpi._new_node, []
    mpi._new_node = lambda comm: made.append(new_node(comm)) or made[-1]
    mpi.bcast_world(np.ones(3) if me == 0 else None, 0, world)
    raised(mpi.bcast_world, None, 0, world)
    assert [each == MPI.COMM_NULL for each in made] == [True] * 2
    mpi._new_node = new_node
    strided = sharedmem.ones((1000, 10))[::3, 1] if me == 1 else None
    assert mpi.bcast_world(strided, 1, world, node).shape == (334,)
    # No room on one node is an error at all ranks.
    empty = sharedmem.empty
    def refused(*args):
        raise MemoryError("no room")
    if me == size - 1:
        sharedmem.empty = refused
    assert all(each[0] == "MemoryError" and "no room" in each[1]
               for each in raised(mpi.bcast_world, np.ones(3), 0, world, node))
    sharedmem.empty = empty
    # A communicator whose ranks do not share memory is an error at all of them.
    assert all(each[0] == "RuntimeError" and "sharedmem.mpi.node" in each[1]
               for each in raised(mpi.bcast, np.ones(3), 0, world))
    assert all(each[0] == "RuntimeError" for each in raised(mpi.empty, 3, float, world))
    if me == 0:
        print("done")
    """
    apart = ["unshare", "--ipc"]
    assert run(code, tmp_path, (2, []), (1, apart), (1, apart)) == ["done"]


@needs_mpi
def test_ranks_that_cannot_use_the_memory_are_alone(tmp_path):
    """Equal places whose memory cannot be used after all: the ranks are apart."""
    code = """
    from sharedmem._integrations import mpi_
    if me == 1:
        class Refusing:
            HIGHEST_PROTOCOL = 5
            dumps = staticmethod(mpi_.pickle.dumps)
            def loads(data):
                raise PermissionError("seccomp")
        mpi_.pickle = Refusing
    node = mpi.node(world)
    assert node.size == (1 if me == 1 else 2), node.size
    if me == 1:
        # Memory that can be had, and is not what the other rank has written.
        Refusing.loads = staticmethod(lambda data: np.zeros(8, np.uint64))
    node = mpi.node(world)
    assert node.size == (1 if me == 1 else 2), node.size
    b = mpi.bcast_world(np.ones(5) if me == 0 else None, 0, world)
    assert b.sum() == 5
    # The same where another memory is found than was meant.
    if me == 1:
        Refusing.loads = staticmethod(lambda data: sharedmem.zeros(8, np.uint64))
    again = mpi.node(world)
    assert again.size == node.size
    # A communicator keeps the memory of its ranks attached.
    assert len(again.Get_attr(mpi_._kept)) == again.size
    yes, no = True, False
    assert mpi_.groups_of([[yes] * 3] * 3) == [0, 0, 0]
    assert mpi_.groups_of([[yes, no, yes], [yes, yes, yes], [yes, yes, yes]]) == [0, 1, 0]
    assert mpi_.groups_of([[yes, yes, no], [yes, yes, yes], [no, yes, yes]]) == [0, 0, 1]
    assert mpi_.groups_of([[no, no], [no, no]]) == [0, 1]
    if me == 0:
        print("done")
    """
    assert run(code, tmp_path, (3, ())) == ["done"]


@needs_mpi
def test_nodes_keep_arenas_and_are_as_large_as_a_process_can_attach(tmp_path):
    code = """
    node = mpi.node(world)
    gc.collect()
    assert node.size == 3 and sharedmem.stats()["attached_arenas"] == 3, sharedmem.stats()
    # Hosts with more ranks than a process can attach arenas have several nodes.
    mpi._MOST_RANKS = 2
    small = mpi.node(world)
    assert small.allgather(me) == ([0, 1] if me < 2 else [2])
    b = mpi.bcast_world(np.arange(5) if me == 2 else None, 2, world, small)
    assert b.sum() == 10
    mpi._MOST_RANKS = 100
    # A rank that gets no memory is alone, and no other waits for it.
    place = sharedmem.place
    for kind in (MemoryError, OSError):
        def refused():
            raise kind
        if me == 1:
            sharedmem.place = refused
        assert mpi.node(world).allgather(me) == ([1] if me == 1 else [0, 2])
        sharedmem.place = place
    # Of a class of one's own too, and what a rank cannot load is an error at all.
    class Tagged(sharedmem.SharedArray):
        pass
    import __main__
    __main__.Tagged = Tagged
    Tagged.__module__, Tagged.__qualname__ = "__main__", "Tagged"
    assert type(mpi.bcast(sharedmem.ones(3).view(Tagged) if me == 0 else None, 0, node)) is Tagged
    # A node that is made for one call keeps nothing after it.
    def blocks():
        gc.collect()
        world.Barrier()
        sharedmem.collect()
        return sharedmem.stats()["live_blocks"]
    del b
    before = blocks()
    assert mpi.bcast_world(np.ones(5) if me == 0 else None, 0, world).sum() == 5
    assert blocks() == before
    if me == 0:
        print("done")
    """
    assert run(code, tmp_path, (3, ())) == ["done"]


def test_without_mpi4py_the_error_names_the_extra():
    code = """
    import sys
    sys.modules["mpi4py"] = None
    import sharedmem
    try:
        import sharedmem.mpi
    except ImportError as error:
        print(error.name, error)
    """
    said = check_python(code)
    assert said.startswith("mpi4py ")
    assert "pip install 'numpy-sharedmem[mpi]'" in said
