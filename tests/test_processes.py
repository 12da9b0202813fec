"""Arrays through everything that multiprocessing has, in every start method."""

import multiprocessing
import pickle
import socket
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.managers import BaseManager

import numpy as np
import pytest
import workers
from samples import DTYPES, VIEWS, name, sample
from support import (
    KINDS,
    TIMEOUT,
    Remote,
    check_python,
    join,
    same,
)

import sharedmem


@pytest.fixture(params=KINDS, scope="module")
def remote(request):
    with Remote(request.param) as remote:
        yield remote


@pytest.fixture(autouse=True)
def nothing_held(request):
    yield
    if "remote" in request.fixturenames:
        request.getfixturevalue("remote").call(workers.drop_all)


def check_description(got, a):
    """What a worker saw of an array is what we see of it."""
    assert got["shared"]
    assert got["type"] == "SharedArray"
    assert (got["shape"], got["strides"], got["dtype"]) == (a.shape, a.strides, a.dtype)
    assert got["writeable"] == a.flags.writeable
    assert got["data"] == a.tobytes()


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d.itemsize], ids=name)
def test_every_dtype_arrives(remote, dtype):
    a = sharedmem.asshared(sample((2, 3), dtype))
    check_description(remote.call(workers.describe, a), a)


@pytest.mark.parametrize("view", [v for v in VIEWS if v != "empty slice"])
def test_every_view_arrives(remote, view):
    a = VIEWS[view](sharedmem.asshared(sample((6, 12))))
    check_description(remote.call(workers.describe, a), a)
    a = VIEWS[view](sharedmem.asshared(sample((6, 12))))
    a.flags.writeable = False
    check_description(remote.call(workers.describe, a), a)


@pytest.mark.parametrize("shape", [(), (1,), (1,) * 20, (0,), (5, 0), (1, 0, 3)], ids=str)
def test_odd_shapes_arrive(remote, shape):
    a = sharedmem.ones(shape, "i2")
    got = remote.call(workers.describe, a)
    assert (got["shape"], got["dtype"], got["data"]) == (shape, a.dtype, a.tobytes())


def test_data_is_aligned_in_every_process(remote):
    for nbytes in (3, 8, 100, 5000):
        a = sharedmem.ones(nbytes, "u1")
        assert remote.call(workers.describe, a)["aligned64"]


def test_writes_are_seen_both_ways(remote):
    a = sharedmem.zeros((3, 4))
    remote.call(workers.hold, "a", a)
    remote.call(workers.store_held, "a", (1, 2), 5.0)
    assert a[1, 2] == 5
    a[2, 3] = 7
    assert remote.call(workers.item_held, "a", (2, 3)) == 7


def test_writes_into_a_view_are_seen_in_the_whole(remote):
    a = sharedmem.zeros((6, 12))
    remote.call(workers.fill, a[::2, ::-3], 1.0)
    assert a.sum() == 12
    assert (a[::2, ::-3] == 1).all()
    assert same(a[1::2], np.zeros((3, 12)))


def test_a_result_is_the_array_itself(remote):
    a = sharedmem.zeros(1000)
    b = remote.call(workers.increment, a)
    assert type(b) is sharedmem.SharedArray
    assert (a == 1).all()
    b[5] = 9
    assert a[5] == 9
    assert np.shares_memory(a, b)


def test_arrays_made_by_the_worker(remote):
    remote.call(workers.hold_full, "a", (30, 40), 2.0)
    a = remote.call(workers.held, "a")
    assert type(a) is sharedmem.SharedArray
    assert (a == 2).all()
    a[3, 4] = 11
    assert remote.call(workers.item_held, "a", (3, 4)) == 11
    remote.call(workers.store_held, "a", (0, 0), -1)
    assert a[0, 0] == -1


def test_results_the_worker_does_not_keep(remote):
    arrays = [remote.call(workers.full, 1000, float(i)) for i in range(20)]
    assert all((a == i).all() for i, a in enumerate(arrays))


def test_plain_handles_both_ways(remote):
    a = sharedmem.full(100, 2.0)
    remote.call(workers.hold_handle, "a", pickle.dumps(a[10:]))
    remote.call(workers.store_held, "a", 0, 100.0)
    assert a[10] == 100
    remote.call(workers.hold_full, "b", 50, 3.0)
    b = pickle.loads(remote.call(workers.plain_handle, "b"))
    assert b.sum() == 150
    remote.call(workers.drop, "b")
    assert b.sum() == 150


def test_two_workers_share_what_one_made(remote):
    with Remote("spawn") as other:
        remote.call(workers.hold_full, "a", 100, 1.0)
        data = remote.call(workers.plain_handle, "a")
        other.call(workers.hold_handle, "b", data)
        remote.call(workers.drop, "a")
        assert other.call(workers.total_held, "b") == 100
        a = other.call(workers.held, "b")
    assert a.sum() == 100


def make_queue(context, kind):
    return context.Queue() if kind == "Queue" else context.SimpleQueue()


def close_queue(queue):
    queue.close()
    if hasattr(queue, "join_thread"):
        queue.join_thread()


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue"])
def test_queues(context, kind):
    source, target = make_queue(context, kind), make_queue(context, kind)
    worker = context.Process(target=workers.forward, args=(source, target))
    worker.start()
    a = sharedmem.zeros((300, 400))
    source.put({"a": a, "view": a[::2].T})
    got = target.get()
    got["view"][0, 0] = 5
    got["a"][1, 1] = 6
    assert (a[0, 0], a[1, 1]) == (5, 6)
    assert join(worker) == [0]
    close_queue(source)
    close_queue(target)


def test_pipe_and_process_arguments(context):
    a = sharedmem.zeros(10)
    ours, theirs = context.Pipe()
    worker = context.Process(target=workers.send_full, args=(theirs, (3, 4), 2.0))
    writer = context.Process(target=workers.store, args=(a[5:], 1), kwargs={"value": 8.0})
    worker.start()
    writer.start()
    theirs.close()
    assert ours.poll(TIMEOUT)
    assert (ours.recv() == 2).all()
    assert join(worker, writer) == [0, 0]
    assert a[6] == 8
    ours.close()


@pytest.mark.parametrize("start_method", ["fork", "spawn", "forkserver"])
def test_pool_with_arrays_from_before_and_after_its_start(start_method):
    context = multiprocessing.get_context(start_method)
    before = sharedmem.zeros(1000)
    with context.Pool(2) as pool:
        after = sharedmem.zeros(1000)
        for a in (before, after):
            assert pool.apply_async(workers.increment, (a,)).get(TIMEOUT).sum() == 1000
            assert a.sum() == 1000
        blocks = [after[i : i + 100] for i in range(0, 1000, 100)]
        results = pool.map_async(workers.increment, blocks).get(TIMEOUT)
        assert (after == 2).all()
        assert all(np.shares_memory(result, after) for result in results)
        made = pool.starmap_async(workers.full, [(100, float(i)) for i in range(10)]).get(TIMEOUT)
        pool.close()
        pool.join()
    assert [a.sum() for a in made] == [100.0 * i for i in range(10)]


def test_pool_of_short_lived_workers(context):
    with context.Pool(2, maxtasksperchild=1) as pool:
        made = pool.starmap_async(workers.full, [(100, float(i)) for i in range(4)], 1).get(TIMEOUT)
        pool.close()
        pool.join()
    assert [a.sum() for a in made] == [0.0, 100.0, 200.0, 300.0]


def test_pool_initializer(context):
    a = sharedmem.zeros(100)
    with context.Pool(1, workers.hold, ("a", a)) as pool:
        pool.apply_async(workers.store_held, ("a", 7, 5.0)).get(TIMEOUT)
        pool.close()
        pool.join()
    assert a[7] == 5


def test_process_pool_executor(context):
    a = sharedmem.zeros(100)
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        first = executor.submit(workers.increment, a)
        assert np.shares_memory(first.result(TIMEOUT), a)
        made = list(executor.map(workers.full, [10, 20], [1.0, 2.0], timeout=TIMEOUT))
    assert [b.sum() for b in made] == [10, 40]
    assert (a == 1).all()


def test_manager_proxies(context):
    a = sharedmem.zeros(100)
    with context.Manager() as manager:
        shelf = manager.dict()
        shelf["a"] = a
        shelf["a"][5] = 8
        assert a[5] == 8
        things = manager.list([a[10:]])
        things[0][0] = 9
        assert a[10] == 9
        queue = manager.Queue()
        queue.put(a)
        got = queue.get(timeout=TIMEOUT)
        got[0] = 1
        assert a[0] == 1
        del shelf, things, queue


class Shelf:
    """An object in a manager's process that makes and keeps arrays."""

    def __init__(self):
        self.kept = sharedmem.ones(100)

    def get(self):
        return self.kept

    def new(self, value):
        return sharedmem.full(100, value)

    def put(self, a):
        self.kept = a


class ShelfManager(BaseManager):
    pass


ShelfManager.register("Shelf", Shelf)


def test_objects_of_a_manager(context):
    with ShelfManager(ctx=context) as manager:
        shelf = manager.Shelf()
        assert shelf.get().sum() == 100
        shelf.get()[0] = 5
        assert shelf.get()[0] == 5
        assert shelf.new(3.0).sum() == 300
        shelf.put(sharedmem.full(10, 7.0))
        assert shelf.get().sum() == 70


def test_many_handles_for_one_worker(context):
    a = sharedmem.zeros(2000)
    with context.Pool(1) as pool:
        pool.map_async(workers.increment, [a[i : i + 1] for i in range(2000)], 1).get(TIMEOUT)
        pool.close()
        pool.join()
    assert (a == 1).all()


def test_plain_bytes_through_a_socket_to_an_unrelated_interpreter():
    a = sharedmem.zeros((3, 4))
    code = """
    import pickle, socket, sys
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
        a = pickle.loads(connection.recv(1000))
        a[1, 1] = 5
        connection.sendall(b"done")
        connection.recv(10)
        print(a[2, 2])
    """
    import threading

    def serve():
        connection, _ = listener.accept()
        with connection:
            connection.sendall(pickle.dumps(a))
            connection.recv(10)
            seen.append(a[1, 1])
            a[2, 2] = 6
            connection.sendall(b"look")

    seen = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT)
        thread = threading.Thread(target=serve)
        thread.start()
        assert check_python(code, listener.getsockname()[1]) == "6.0"
        thread.join()
    assert seen == [5]


def test_plain_bytes_in_a_file(tmp_path):
    a = sharedmem.zeros(10)
    with open(tmp_path / "handle", "wb") as file:
        file.write(pickle.dumps({"a": a}))
    code = """
    import pickle, sys
    with open(sys.argv[1], "rb") as file:
        pickle.load(file)["a"][3] = 4
    """
    for related in (True, False):
        a[3] = 0
        check_python(code, tmp_path / "handle", related=related)
        assert a[3] == 4


def test_a_receiver_need_not_import_the_library():
    a = sharedmem.zeros(5)
    code = """
    import pickle, sys
    pickle.loads(bytes.fromhex(sys.argv[1]))[2] = 1
    print("sharedmem" in sys.modules)
    """
    assert check_python(code, pickle.dumps(a).hex()) == "True"
    assert a[2] == 1


def test_processes_that_outlive_each_other_in_turn():
    a = sharedmem.full(100, 5.0)
    data = pickle.dumps(a)
    for kind in (*KINDS, *KINDS):
        with Remote(kind) as remote:
            remote.call(workers.hold_handle, "a", data)
            remote.call(workers.store_held, "a", 0, 5.0)
        assert a.sum() == 500
    assert pickle.loads(data).sum() == 500


def test_the_creator_ends_and_the_others_continue():
    with Remote("spawn") as second, Remote("unrelated") as third:
        with Remote("unrelated") as maker:
            maker.call(workers.hold_full, "a", 1000, 2.0)
            data = maker.call(workers.plain_handle, "a")
            second.call(workers.hold_handle, "a", data)
            third.call(workers.hold_handle, "a", data)
        second.call(workers.store_held, "a", 0, 10.0)
        assert third.call(workers.total_held, "a") == 2008
        with Remote("unrelated") as fourth:
            assert fourth.call(workers.total_of_handle, data) == 2008
        second.kill()
        assert third.call(workers.total_held, "a") == 2008
