"""`sharedmem.transport` in other processes: which have the setting, and how much may be in flight."""

import dataclasses
import multiprocessing
import os
import pickle
import sys
import threading
import time

import numpy as np
import pytest
from support import QUICKEST, TIMEOUT, check_python, dumps, in_fork, settle, wait_until

import sharedmem
from sharedmem import is_shared

MIB = 1 << 20
VARIABLE = "SHAREDMEM_TRANSPORT"


@pytest.fixture(autouse=True)
def setting_stays():
    """No test leaves the transport on."""
    before = os.environ.get(VARIABLE)
    yield
    assert os.environ.get(VARIABLE) == before


def counts():
    return sharedmem.stats()["transport"]


# -- other processes


@dataclasses.dataclass
class Result:
    array: np.ndarray
    carried: int


def double(a):
    """Writes into its argument, as a program may that owns it."""
    a *= 2
    return a


def make_first(count):
    """What a worker's first task returns: nothing was sent to it before."""
    return np.full(count, 3.0)


def sent_by_worker(_):
    return counts()


def test_a_pool_gives_the_results_of_pickling(context):
    arrays = [np.full(MIB, float(i)) for i in range(4)]
    with sharedmem.transport(), context.Pool(2) as pool:
        before = counts()["messages"]
        results = pool.map(double, arrays)
        assert counts()["messages"] > before
    assert [float(r[0]) for r in results] == [0.0, 2.0, 4.0, 6.0]
    assert all(type(r) is np.ndarray and not is_shared(r) and r.flags.owndata for r in results)
    assert all((a == i).all() for i, a in enumerate(arrays))


def test_workers_inherit_it_up_to_their_first_result(context):
    with sharedmem.transport(), context.Pool(1) as pool:
        made = pool.apply(make_first, (MIB,))
        assert (made == 3).all()
        assert not is_shared(made)
        sent_ = pool.apply(sent_by_worker, (None,))
    assert (sent_["messages"], sent_["by_pipe"]) == (1, 0)
    assert sent_["bytes"] == 8 * MIB


def test_a_worker_started_without_it_does_not_have_it(context):
    with sharedmem.transport():
        pass
    with context.Pool(1) as pool:
        pool.apply(make_first, (MIB,))
        assert pool.apply(sent_by_worker, (None,))["messages"] == 0


def say_size(a, conn):
    conn.send((type(a).__name__, is_shared(a), a.nbytes, float(a.sum())))
    conn.close()


def test_arguments_of_a_process(context):
    with sharedmem.transport():
        ours, theirs = context.Pipe(False)
        process = context.Process(target=say_size, args=(np.ones(MIB), theirs))
        process.start()
        assert ours.recv() == ("ndarray", False, 8 * MIB, float(MIB))
        process.join(TIMEOUT)
        ours.close()
        theirs.close()
    assert counts()["in_flight"] == 0


MAIN_WITHOUT_IT = """
import multiprocessing, sys
import numpy as np

def make(count):
    import sys
    assert "sharedmem" in sys.modules, "the setting did not come with the process"
    import sharedmem
    return np.ones(count)

def ask(_):
    import sharedmem
    return sharedmem.stats()["transport"]["messages"]

if __name__ == "__main__":
    import sharedmem
    sharedmem.transport()
    with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
        assert pool.apply(make, (1 << 20,)).sum() == 1 << 20
        print(pool.apply(ask, (0,)))
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_worker_whose_main_module_does_not_import_the_library(tmp_path, method):
    script = tmp_path / "main_without_it.py"
    script.write_text(MAIN_WITHOUT_IT)
    code = "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    assert check_python(code, script, method) == "1"


# -- limits


def test_what_is_under_way_is_bounded():
    with sharedmem.transport(max_in_flight=20 * MIB):
        before = counts()["by_pipe"]
        messages = [dumps(np.full(MIB, i, np.float64)) for i in range(5)]
        assert 16 * MIB <= counts()["in_flight"] <= 20 * MIB
        assert counts()["by_pipe"] - before == 3
        assert [len(m) < 1000 for m in messages] == [True, True, False, False, False]
        assert [int(pickle.loads(m)[0]) for m in messages] == [0, 1, 2, 3, 4]
        assert counts()["in_flight"] == 0
        assert len(dumps(np.ones(MIB))) < 1000  # there is room again
    sharedmem.revoke(0)


def test_a_limit_of_nothing_sends_everything_by_the_pipe():
    with sharedmem.transport(max_in_flight=0):
        before = counts()
        assert dumps(np.ones(MIB)) == pickle.dumps(np.ones(MIB))
        assert counts() == {**before, "by_pipe": before["by_pipe"] + 1}


SHORT = """
import pickle
import numpy as np, sharedmem
from multiprocessing.reduction import ForkingPickler

def fill():
    # Promises all memory that there is; other programs may give some back at any time.
    size = 1 << 40
    while size >= 16 << 20:
        try:
            held.append(sharedmem.empty(size, "u1", populate=False))
        except MemoryError:
            size //= 2

sharedmem.transport(max_in_flight=1 << 40)
a = np.arange(32 << 20, dtype="i4")
held = []
for attempt in range(100):
    fill()
    message = ForkingPickler.dumps([a])
    assert np.array_equal(pickle.loads(message)[0], a)
    if sharedmem.stats()["transport"]["by_pipe"] > 0:
        break
print(len(message) > a.nbytes, sharedmem.stats()["transport"]["by_pipe"], sharedmem.stats()["leases"])
del message  # Python 3.14 complains at its end of a BytesIO whose buffer somebody has
"""


@pytest.mark.skipif(sys.maxsize < 1 << 32, reason="addresses end before memory does; the pipe needs some")
def test_where_memory_is_short_the_pipe_takes_it():
    assert check_python(SHORT) == "True 1 0"


KEEPING = """
import pickle
import numpy as np, sharedmem
from multiprocessing.reduction import ForkingPickler
sharedmem.transport()
kept = ForkingPickler.dumps(np.ones(1 << 20))
message = ForkingPickler.dumps([np.ones(1 << 20)])
assert (pickle.loads(message)[0] == 1).all() and (pickle.loads(kept) == 1).all()
print(len(kept) < 1000, len(message) > 8 << 20, sharedmem.stats()["transport"]["by_pipe"])
print(len(ForkingPickler.dumps(np.ones(1 << 20))) < 1000, sharedmem.revoke(0))
"""


def test_where_messages_may_keep_no_more_the_pipe_takes_it():
    said = check_python(KEEPING, SHAREDMEM_IN_FLIGHT_LIMIT="1MiB")
    assert said.split() == ["True", "True", "1", "True", "1"]


def test_the_parents_messages_are_not_a_childs():
    with sharedmem.transport(max_in_flight=20 * MIB):
        message = dumps(np.ones(2 * MIB))
        assert counts()["in_flight"] >= 16 * MIB
        context = multiprocessing.get_context(QUICKEST)
        with context.Pool(1) as pool:
            assert pool.apply(sent_by_worker, (None,)) == dict.fromkeys(
                ("messages", "bytes", "in_flight", "by_pipe"), 0
            )
            assert (pool.apply(make_first, (2 * MIB,)) == 3).all()
            assert pool.apply(sent_by_worker, (None,))["by_pipe"] == 0
        assert (pickle.loads(message) == 1).all()


def test_a_child_that_is_forked_while_a_thread_copies_does_not_hold_the_block():
    data = np.ones(8 * MIB)
    done = threading.Event()

    def copy():
        while not done.is_set():
            pickle.loads(dumps(data))

    def child():
        assert sharedmem.stats()["live_bytes"] < data.nbytes

    with sharedmem.transport():
        thread = threading.Thread(target=copy)
        thread.start()
        try:
            for _ in range(20):
                time.sleep(0.005)
                assert in_fork(child) == 0
        finally:
            done.set()
            thread.join()


def put_and_forget(queue):
    for i in range(10):
        queue.put(np.full(MIB, i, np.float64))


def test_a_queue_that_is_thrown_away_pins_no_more_than_the_limit():
    with sharedmem.transport(max_in_flight=20 * MIB):
        queue = multiprocessing.get_context(QUICKEST).Queue()
        put_and_forget(queue)
        assert wait_until(lambda: counts()["in_flight"] >= 16 * MIB)
        assert counts()["in_flight"] <= 20 * MIB
        queue.cancel_join_thread()
        queue.close()
        del queue
        settle()
        sharedmem.revoke(0)
        assert counts()["in_flight"] <= 20 * MIB
        assert wait_until(lambda: sharedmem.revoke(0) == 0 and counts()["in_flight"] == 0)
        before = counts()["messages"]
        got = pickle.loads(dumps(np.ones(MIB)))
        carried = counts()["messages"] - before
        assert carried == 1
        assert (got == 1).all()
