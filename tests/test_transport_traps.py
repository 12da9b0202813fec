"""What could go wrong with `sharedmem.transport`: forks, deaths, other hosts, full queues, event loops."""

import asyncio
import contextlib
import pickle
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Client, Listener
from multiprocessing.managers import BaseManager

import numpy as np
import pytest
import workers
from support import QUICKEST, TIMEOUT, context_of, dumps, environment, needs_namespaces, wait_until

import sharedmem
from sharedmem import is_shared

MIB = 1 << 20
FORK = context_of("fork")
CONTEXT = context_of(QUICKEST)


def counts():
    return sharedmem.stats()["transport"]


def write_seven(a):
    a[:] = 7


def fork_and_write(a):
    process = FORK.Process(target=write_seven, args=(a,))
    process.start()
    process.join(TIMEOUT)
    assert process.exitcode == 0


@pytest.mark.parametrize("copy", [True, False])
def test_a_process_that_is_forked_later_has_its_own_copy_by_default(copy):
    with sharedmem.transport(copy=copy):
        got = pickle.loads(dumps([np.ones(MIB)]))[0]
    fork_and_write(got)
    assert got[0] == (1 if copy else 7)
    assert is_shared(got) is not copy


def give(i):
    return np.full(2 * MIB, i)


def test_results_that_the_parent_keeps_are_not_its_childrens():
    with sharedmem.transport(), FORK.Pool(2) as pool:
        results = pool.map(give, range(4))
        for each in results:
            fork_and_write(each)
        assert [int(r[0]) for r in results] == [0, 1, 2, 3]


def sum_slowly(a):
    time.sleep(0.01)
    return float(a.sum()), sharedmem.stats()["bytes_in_flight"]


def test_a_generator_that_is_ahead_of_its_readers_does_not_fill_the_memory():
    limit = 12 * MIB
    with sharedmem.transport(max_in_flight=limit), CONTEXT.Pool(2) as pool:
        before = counts()
        others = sharedmem.stats()["bytes_in_flight"]
        sums = []
        for total, kept in pool.imap(sum_slowly, (np.full(MIB // 2, i) for i in range(30))):
            sums.append(total)
            assert kept - others <= limit
        after = counts()
    assert sums == [float(i * MIB // 2) for i in range(30)]
    messages, by_pipe = (after[k] - before[k] for k in ("messages", "by_pipe"))
    assert messages + by_pipe == 30
    assert messages >= 1


def wait_without_taking(conn, ready):
    time.sleep(2 * TIMEOUT)


def take_and_wait(conn, ready):
    ready.send(conn.recv().nbytes)
    time.sleep(2 * TIMEOUT)


def test_a_reader_that_is_killed_before_or_after_it_reads_pins_no_more_than_the_limit():
    with sharedmem.transport(max_in_flight=20 * MIB):
        for reads in (0, 1):
            ours, theirs = CONTEXT.Pipe()
            ready, theirs_ready = CONTEXT.Pipe(False)
            target = take_and_wait if reads else wait_without_taking
            process = CONTEXT.Process(target=target, args=(theirs, theirs_ready))
            process.start()
            theirs.close()
            theirs_ready.close()
            ours.send(np.ones(MIB))
            if reads:
                assert ready.recv() == 8 * MIB
            process.kill()
            process.join(TIMEOUT)
            assert workers.was_killed(process.exitcode)
            ours.close()
            ready.close()
        sharedmem.collect(leases=True)
        assert counts()["in_flight"] <= 20 * MIB
        sharedmem.revoke(0)
        assert counts()["in_flight"] == 0


def kill_self_while_sending(conn):
    # The message is written by a thread, which the kill may meet at any moment.
    import threading

    def send():
        while True:
            conn.send(np.ones(MIB // 4))

    threading.Thread(target=send, daemon=True).start()
    time.sleep(0.02)
    workers.kill()


def test_whatever_a_killed_sender_has_sent_arrives_whole():
    with sharedmem.transport():
        for _ in range(5):
            ours, theirs = CONTEXT.Pipe()
            process = CONTEXT.Process(target=kill_self_while_sending, args=(theirs,))
            process.start()
            theirs.close()
            with contextlib.suppress(EOFError, OSError):  # what was cut by the kill, or the end
                while True:
                    assert (ours.recv() == 1).all()
            process.join(TIMEOUT)
            ours.close()
    sharedmem.collect(leases=True)


def test_messages_of_threads_are_their_own():
    import threading

    wrong = []

    def send_many(number):
        for i in range(30):
            got = pickle.loads(dumps({"a": np.full(20000, number), "b": [np.full(20000, i)] * 2}))
            if not ((got["a"] == number).all() and (got["b"][1] == i).all()):
                wrong.append((number, i))

    with sharedmem.transport():
        threads = [threading.Thread(target=send_many, args=(n,)) for n in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(TIMEOUT)
    assert wrong == []
    assert counts()["in_flight"] == 0


# -- other hosts

OTHER_HOST = """
import sys
from multiprocessing.connection import Client
import numpy as np
{imports}
with Client(("127.0.0.1", int(sys.argv[1])), authkey=b"key") as conn:
    a = conn.recv()
    total = float(a["private"].sum() + a["shared"].sum())
    conn.send({{"sum": total, "back": a["private"] * 2, "kind": str(type(a["exact"]))}})
"""


@pytest.mark.parametrize("imports", ["", "import sharedmem; sharedmem.transport()"], ids=["without", "with"])
def test_arrays_sent_over_tcp_to_another_ipc_namespace_arrive(imports):
    needs_namespaces("--ipc")
    with sharedmem.transport(), Listener(("127.0.0.1", 0), authkey=b"key") as listener:
        code = OTHER_HOST.format(imports=imports)
        command = ["unshare", "--ipc", sys.executable, "-c", code, str(listener.address[1])]
        with subprocess.Popen(command, env=environment(related=False)) as process:
            conn = listener.accept()
            before = counts()
            shared = sharedmem.ones(MIB)
            conn.send({"private": np.ones(MIB), "shared": shared, "exact": np.asarray(shared)[::2]})
            assert counts() == before
            answer = conn.recv()
            conn.close()
            assert process.wait(TIMEOUT) == 0
    assert answer["sum"] == 2 * MIB
    assert (answer["back"] == 2).all()
    assert not is_shared(answer["back"])
    assert answer["kind"] == "<class 'numpy.ndarray'>"


class Shelf:
    def __init__(self):
        self.items = {}

    def put(self, name, item):
        self.items[name] = item

    def get(self, name):
        return self.items[name]


class ShelfManager(BaseManager):
    """Starts a process that has a shelf."""


ShelfManager.register("Shelf", Shelf)


def test_a_manager_on_a_tcp_address_carries_values():
    shared = sharedmem.ones(MIB)
    with sharedmem.transport(), ShelfManager(("127.0.0.1", 0), b"key", ctx=CONTEXT) as manager:
        shelf = manager.Shelf()
        shelf.put("a", [shared, np.ones(MIB)])
        shared[:] = 2
        got = shelf.get("a")
        assert not is_shared(got[0])
        assert (got[0] == 1).all()
        assert (got[1] == 1).all()
        del shelf


@pytest.mark.parametrize("family", ["AF_UNIX", "AF_INET"])
def test_connections_within_the_host_carry_handles_and_others_values(family):
    with Listener(family=family) as listener:
        process = CONTEXT.Process(target=send_back, args=(listener.address,))
        process.start()
        conn = listener.accept()
        a = sharedmem.ones(1000)
        conn.send(a)
        got = conn.recv()
        process.join(TIMEOUT)
        conn.close()
    assert is_shared(got) == (family != "AF_INET")
    assert (a == (1 if family == "AF_INET" else 2)).all()
    assert (got == 2).all()


def send_back(address):
    with Client(address) as conn:
        a = conn.recv()
        a += 1
        conn.send(a)


# -- event loops


def double(a):
    return a * 2


def test_an_event_loop_gets_the_results_of_pickling():
    arrays = [np.full(MIB, i) for i in range(4)]

    async def main():
        loop = asyncio.get_running_loop()
        with ProcessPoolExecutor(2, FORK) as executor:
            tasks = [loop.run_in_executor(executor, double, a) for a in arrays]
            return await asyncio.wait_for(asyncio.gather(*tasks), TIMEOUT)

    with sharedmem.transport():
        before = counts()["messages"]
        results = asyncio.run(main())
        assert counts()["messages"] - before == 4
    assert [int(r[0]) for r in results] == [0, 2, 4, 6]
    assert wait_until(lambda: counts()["in_flight"] == 0)


# -- errors of tasks


def test_a_task_that_cannot_be_loaded_gives_its_data_back(context):
    with sharedmem.transport(), context.Pool(1) as pool:
        with pytest.raises(RuntimeError, match="not here"):
            pool.apply(double, ([CannotBeLoaded(), np.ones(MIB)],))
        assert pool.apply(double, (np.ones(2),)).sum() == 4
        assert wait_until(lambda: counts()["in_flight"] == 0)


def fail_to_load():
    raise RuntimeError("not here")


class CannotBeLoaded:
    def __reduce__(self):
        return fail_to_load, ()


def test_memory_stays_flat_without_the_garbage_collector():
    import gc

    gc.disable()
    try:
        with sharedmem.transport(min_bytes=1024):
            a = [np.ones(1000), {"x": np.ones((50, 50))}]
            pickle.loads(dumps(a))
            before = sharedmem.stats()["live_blocks"], len(gc.get_objects())
            for _ in range(300):
                pickle.loads(dumps(a))
            assert sharedmem.stats()["live_blocks"] == before[0]
            assert len(gc.get_objects()) - before[1] < 100
            assert counts()["in_flight"] == 0
    finally:
        gc.enable()


def test_forged_handles_of_carried_arrays_are_errors():
    from sharedmem.array import _copy_out

    with sharedmem.transport():
        for cut in range(0, 40, 7):
            load, args = pickle_parts(np.ones((300, 300)))
            assert load is _copy_out
            with pytest.raises(ValueError, match="handle"):
                load(args[0][:cut])
            with pytest.raises(ValueError, match="handle"):
                load(args[0][:-1] + bytes([args[0][-1] ^ 1]))
        with pytest.raises(TypeError, match="bytes"):
            _copy_out(None)
        # What is carried is always contiguous; no pickler makes such a handle.
        a = np.asarray(sharedmem.ones((100, 100)))[::2, ::3]
        (handle,) = sharedmem.SharedArray.__reduce_ex__(a.view(sharedmem.SharedArray), 4)[1]
        with pytest.raises(ValueError, match="contiguous"):
            _copy_out(handle)
        assert sharedmem.revoke(0) == 6


def pickle_parts(a):
    """The function and the arguments that a message has for an array."""
    found = []

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            function = super().find_class(module, name)
            return lambda *args: found.append((function, args))

    import io

    Unpickler(io.BytesIO(dumps(a))).load()
    return found[0]
