"""One message with several arrays: its leases, and who gives them back."""

import contextvars
import gc
import os
import pickle
import signal
import threading
from functools import partial
from multiprocessing.reduction import ForkingPickler

import pytest
from support import TIMEOUT, address, check_python, dumps, reap, settle

import sharedmem
from sharedmem import StaleHandleError


def leases():
    return sharedmem.stats()["leases"]


class Calls:
    """Its pickle calls a function, and is what that returns; loading it calls another one."""

    def __init__(self, during_dump, during_load=None):
        self.during_dump = during_dump
        self.during_load = during_load

    def __reduce__(self):
        return loaded, (self.during_dump(), self.during_load)


def loaded(value, function):
    return value if function is None else function(value)


class Dropped:
    """Loads its array and drops it."""

    def __init__(self, a):
        self.a = a

    def __reduce__(self):
        return Forgets, (), self.a


class Forgets:
    def __setstate__(self, state):
        del state
        gc.collect()


def refuse(value):
    raise RuntimeError(f"no {value}")


@pytest.mark.parametrize("protocol", [None, *range(2, pickle.HIGHEST_PROTOCOL + 1)])
def test_views_of_one_array_share_their_leases(protocol):
    before = leases()
    a = sharedmem.full((1000, 4), 3.0)
    message = bytes(ForkingPickler.dumps([*a, a.T, a[::-1, 1], a], protocol))
    assert leases() <= before + 2
    del a
    got = pickle.loads(message)
    assert leases() == before
    assert all((view == 3).all() for view in got)
    assert len(got) == 1003
    got[0][:] = 5
    assert got[-1][0].sum() == 20


def test_views_keep_offset_shape_and_strides():
    whole = sharedmem.zeros(10, [("x", "f8"), ("n", "i4")])
    read_only = whole[2:]
    read_only.flags.writeable = False
    views = [whole, whole["x"], whole["n"][::-2], read_only, whole.view(Named)[3:], whole.view("u1")[7:]]
    got = pickle.loads(dumps(views))
    for one, other in zip(got, views, strict=True):
        assert type(one) is type(other)
        assert (address(one), one.shape, one.strides) == (address(other), other.shape, other.strides)
        assert (one.dtype, one.flags.writeable) == (other.dtype, other.flags.writeable)


class Named(sharedmem.SharedArray):
    pass


def test_several_arrays_and_views_of_each():
    before = leases()
    arrays = [sharedmem.full(8, float(i)) for i in range(300)]
    message = dumps([a[start:] for start in range(4) for a in arrays])
    assert leases() <= before + 2 * len(arrays)
    del arrays
    settle()
    got = pickle.loads(message)
    assert [a[0] for a in got] == [float(i) for _ in range(4) for i in range(300)]
    assert leases() == before


def test_views_that_the_receiver_drops_while_it_loads():
    before = leases()
    a = sharedmem.full(1000, 2.0)
    message = dumps([Dropped(a), Dropped(a[1:]), Dropped(a[2:]), a[3:], Dropped(a[4:]), a[5:]])
    del a
    settle()
    got = pickle.loads(message)
    assert got[3].sum() == 2 * 997
    assert got[5].sum() == 2 * 995
    assert leases() == before


def test_a_pickle_within_a_message_needs_nothing_of_the_rest():
    before = leases()
    a = sharedmem.full(1000, 2.0)
    inner = [Calls(partial(pickle.dumps, [a[i:], a[i + 1 :]])) for i in range(3)]
    message = dumps([a, *inner, a[7:], a[8:]])
    del a, inner
    settle()
    got = pickle.loads(message)
    kept = got[1:4]
    del got
    settle()
    for i in (2, 0, 1):
        views = pickle.loads(kept[i])
        assert [view.sum() for view in views] == [2 * (1000 - i), 2 * (999 - i)]
        del views
        settle()
    assert leases() == before


def test_pickles_without_a_memo():
    a = sharedmem.full(1000, 2.0)
    before = leases()

    class Fast(ForkingPickler):
        def __init__(self, *args):
            super().__init__(*args)
            self.fast = True

    message = Fast.dumps([Dropped(a), Dropped(a[1:]), Dropped(a[2:]), a[3:]])
    del a
    settle()
    assert pickle.loads(message)[3].sum() == 2 * 997
    assert leases() == before


def test_a_message_whose_load_fails_half_way_keeps_nothing():
    before = sharedmem.stats()
    a = sharedmem.full(100_000, 2.0)
    message = dumps([a[1:], a[2:], Calls(lambda: 1, refuse), a[3:], a[4:]])
    del a
    with pytest.raises(RuntimeError, match="no 1"):
        pickle.loads(message)
    settle()
    after = sharedmem.stats()
    assert after["leases"] == before["leases"]
    assert after["shared_bytes"] == before["shared_bytes"]
    with pytest.raises(StaleHandleError):
        pickle.loads(message)


def kill_this_process(value):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_receiver_that_is_killed_while_it_loads_keeps_nothing():
    before = sharedmem.stats()
    a = sharedmem.full(100_000, 2.0)
    message = dumps([a[1:], a[2:], Calls(lambda: 1, kill_this_process), a[3:]])
    del a
    child = os.fork()
    if child == 0:
        pickle.loads(message)
        os._exit(0)
    assert reap(child) == -signal.SIGKILL
    sharedmem.collect()
    settle()
    after = sharedmem.stats()
    assert after["leases"] == before["leases"]
    assert after["shared_bytes"] == before["shared_bytes"]


def test_a_message_loaded_twice():
    a = sharedmem.full(1000, 2.0)
    message = dumps([a[i:] for i in range(5)])
    del a
    first = pickle.loads(message)
    second = pickle.loads(message)
    del first
    settle()
    assert [view.size for view in second] == [1000, 999, 998, 997, 996]
    assert all((view == 2).all() for view in second)
    del second
    settle()
    with pytest.raises(StaleHandleError):
        pickle.loads(message)


def test_a_message_that_fails_gives_back_the_leases_of_all_views():
    before = leases()
    a = sharedmem.ones(1000)
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        dumps([a, a[1:], a[2:], lambda: 0])
    assert leases() == before


def test_a_context_that_outlives_its_message_takes_no_leases():
    before = leases()
    a = sharedmem.ones(1000)
    kept = []
    pickle.loads(dumps(Calls(lambda: kept.append(contextvars.copy_context()))))
    kept[0].run(pickle.dumps, [a, a[1:]])
    assert leases() == before


def test_a_thread_in_a_copy_of_the_context_takes_no_leases():
    before = leases()
    a = sharedmem.ones(1000)
    seen = []

    def pickle_elsewhere():
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(lambda: seen.append(pickle.dumps([a, a[1:]])),))
        thread.start()
        thread.join(TIMEOUT)
        seen.append(leases())

    dumps(Calls(pickle_elsewhere))
    assert len(seen) == 2
    assert seen[1] == before


def test_by_value_within_a_message_and_around_one():
    a = sharedmem.ones(1000)

    def by_value():
        with sharedmem.pickle_by_value():
            return pickle.dumps([a, a[1:]])

    before = leases()
    message = dumps([a, Calls(by_value), a[1:]])
    got = pickle.loads(message)
    assert not sharedmem.is_shared(pickle.loads(got[1])[0])
    assert sharedmem.is_shared(got[2])
    with sharedmem.pickle_by_value():
        got = pickle.loads(dumps([a, Calls(lambda: pickle.dumps(a))]))
    assert not sharedmem.is_shared(got[0])
    assert not sharedmem.is_shared(pickle.loads(got[1]))
    assert leases() == before


GREENLETS = """
import pickle, greenlet, sharedmem
from multiprocessing.reduction import ForkingPickler
main = greenlet.getcurrent()

class Waits:
    def __init__(self, fails=False):
        self.fails = fails
    def __reduce__(self):
        main.switch()       # as a lock or a socket of gevent does
        if self.fails:
            raise RuntimeError
        return int, ()

def leases():
    return sharedmem.stats()["leases"]

def send(message):
    try:
        sent.append(bytes(ForkingPickler.dumps(message)))
    except RuntimeError:
        sent.append(None)

a, b, c = (sharedmem.full(1000, float(i)) for i in range(3))
sent = []
each = [greenlet.greenlet(send) for _ in range(3)]
each[0].switch([a, Waits(), a[1:]])
each[1].switch([Waits(), b, Waits(), b[1:]])
each[2].switch([c, Waits(fails=True)])
assert leases() == 2
pickle.dumps(a)
assert leases() == 2        # a plain pickle beside them takes none
each[2].switch()            # fails: its lease alone is given back
assert sent == [None] and leases() == 1, leases()
each[1].switch()
each[0].switch()
each[1].switch()
assert all(one.dead for one in each)
pickle.dumps(a)
assert leases() == 4, leases()
del a, b
print(pickle.loads(sent[1])[2].sum(), pickle.loads(sent[2])[1].sum(), leases())
"""


def test_messages_of_greenlets_that_take_turns():
    pytest.importorskip("greenlet")
    assert check_python(GREENLETS, related=False) == "0.0 1000.0 0"


FORKS = """
import os, pickle, sys
import sharedmem
from multiprocessing.reduction import ForkingPickler

class Forks:
    def __reduce__(self):
        child = os.fork()
        if child == 0:
            sys.exit(0)     # unwinds the child's copy of the message
        os.waitpid(child, 0)
        return int, ()

a = sharedmem.full(1000, 3.0)
me = os.getpid()
try:
    message = bytes(ForkingPickler.dumps([a, Forks(), a[1:], Forks()]))
finally:
    if os.getpid() != me:
        os._exit(0)
leases = sharedmem.stats()["leases"]
del a
sharedmem.collect()
print(leases, [int(part.sum()) for part in pickle.loads(message)[::2]])
"""


def test_a_child_forked_in_the_middle_of_a_message_gives_nothing_back():
    assert check_python(FORKS, related=False) == "2 [3000, 2997]"


LEFT = """
import pickle, sys
import sharedmem
from multiprocessing.reduction import ForkingPickler

class Consumes:
    # Loads what the message has of an array and drops all of it, then fails.
    def __init__(self, arrays):
        self.arrays = arrays
    def __reduce__(self):
        load, args = self.arrays[0].__reduce_ex__(4)
        del self.arrays[:]
        load(*args)
        assert sharedmem.stats()["attached_arenas"] == 1, "the foreign arena was not left"
        raise RuntimeError

sharedmem.ones(1)
foreign = [pickle.loads(bytes.fromhex(sys.stdin.readline()))]
assert sharedmem.stats()["attached_arenas"] == 2
try:
    ForkingPickler.dumps(Consumes(foreign))
except RuntimeError:
    print(sharedmem.stats()["attached_arenas"])
"""


def test_an_arena_that_is_left_in_the_middle_of_a_message():
    a = sharedmem.full(1000, 3.0)
    assert check_python(LEFT, related=False, data=pickle.dumps(a).hex().encode()) == "1"


@pytest.mark.slow
def test_more_views_in_one_message_than_there_are_leases():
    count = 1_200_000
    with open("/proc/meminfo") as file:
        available = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    if available < 3 * 2**30:
        pytest.skip("needs 3 GiB of available memory")
    a = sharedmem.full((count, 1), 1, "i1")
    message = dumps(list(a))
    assert len(message) < 150 * count
    del a
    got = pickle.loads(message)
    assert len(got) == count
    assert address(got[-1]) - address(got[0]) == count - 1
    assert got[0][0] == got[-1][0] == 1
