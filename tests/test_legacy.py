"""What the numpy-sharedmem package of 2009 tested and showed, for both of its modules."""

import ctypes
import multiprocessing
import pickle

import numpy as np
import pytest
import support

import sharedmem
import shmarray
from sharedmem.heap import BufferWrapper

MODULES = [sharedmem, shmarray]
DTYPES = [np.float64, np.int32, np.float32, np.uint8, complex]


@pytest.fixture(params=MODULES, ids=lambda module: module.__name__)
def module(request):
    """Each of the two modules."""
    return request.param


# -- values of new arrays


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("maker", ["ones", "zeros"])
def test_small_arrays(module, maker, dtype):
    a = getattr(module, maker)((10,), dtype=dtype)
    assert a.dtype == dtype
    assert support.same(a, getattr(np, maker)((10,), dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_of_two_to_the_16_elements(module, dtype):
    assert support.same(module.zeros((2**16,), dtype=dtype), np.zeros(2**16, dtype))


def test_two_mebibytes(module):
    a = module.zeros((2**21,), dtype="uint8")
    assert a.nbytes == 2**21
    assert not a.any()


def test_every_power_of_two(module):
    for n in range(26):
        a = module.zeros((2**n,), dtype="uint8")
        assert not a.any()
        a[-1] = 1
        assert a.sum() == 1


def test_big_array(module):
    nbytes = 2**26 * 8
    support.needs_memory(nbytes)
    make = module.empty if module is sharedmem else module.create
    a = make(2**26, dtype=np.uint64)
    a[[0, -1]] = 2**64 - 1, 7
    assert a.nbytes == nbytes
    assert (int(a[0]), int(a[-1])) == (2**64 - 1, 7)


# -- two processes


def modify(a, lock):
    with lock:
        a[0] = 1
        a[1] = 2
        a[2] = 3


def modify_pickled(handle, lock):
    modify(pickle.loads(handle), lock)


@pytest.mark.parametrize("pickled", [False, True], ids=["as it is", "pickled"])
def test_a_process_modifies_an_array_in_place(module, context, pickled):
    a = module.zeros((4,))
    lock = context.Lock()
    if pickled:
        process = context.Process(target=modify_pickled, args=(pickle.dumps(a), lock))
    else:
        process = context.Process(target=modify, args=(a, lock))
    process.start()
    assert support.join(process) == [0]
    with lock:
        assert a.tolist() == [1, 2, 3, 0]


def set_three_columns(a):
    a[:, :3] = 1


def set_three_columns_of_pickled(handle):
    set_three_columns(pickle.loads(handle))


def test_a_task_of_a_pool_modifies_an_array_in_place(module, context):
    a = module.zeros((2, 4))
    with context.Pool(2) as pool:
        pool.apply_async(set_three_columns, (a,)).get(support.TIMEOUT)
        pool.close()
        pool.join()
    assert a.tolist() == [[1, 1, 1, 0]] * 2


def test_a_pickled_array_modified_by_a_process(module, context):
    a = module.zeros((2, 4))
    process = context.Process(target=set_three_columns_of_pickled, args=(pickle.dumps(a),))
    process.start()
    assert support.join(process) == [0]
    assert a.tolist() == [[1, 1, 1, 0]] * 2


def exchange(module_name, inbox, outbox):
    """Receives an array, sends one of its own, and reports what was written into it."""
    module = __import__(module_name)
    received = inbox.get()
    received[...] = 5
    mine = module.zeros(10)
    outbox.put(mine)
    assert inbox.get() is None
    outbox.put(mine.tolist())


def test_arrays_through_queues_both_ways(module, context):
    to_child, from_child = context.Queue(), context.Queue()
    process = context.Process(target=exchange, args=(module.__name__, to_child, from_child))
    process.start()
    a = module.zeros(4)
    to_child.put(a)
    b = from_child.get(timeout=support.TIMEOUT)
    b[:] = range(10)
    to_child.put(None)
    assert from_child.get(timeout=support.TIMEOUT) == list(range(10))
    assert support.join(process) == [0]
    assert a.tolist() == [5] * 4
    for queue in (to_child, from_child):
        queue.close()
        queue.join_thread()


@pytest.mark.parametrize("kind", ["subprocess", "unrelated"])
def test_arrays_go_to_processes_that_multiprocessing_did_not_start(module, kind):
    a = module.zeros((2, 4))
    with support.Remote(kind) as remote:
        remote.call(set_three_columns, a)
        remote.call(set_three_columns_of_pickled, pickle.dumps(a[:, 1:]))
    assert a.tolist() == [[1, 1, 1, 1]] * 2


def test_handles_are_small_whatever_the_size(module):
    assert len(pickle.dumps(module.zeros(10**6))) < 500


# -- names


def test_names_of_the_first_version():
    for old, new in (("shared_empty", "empty"), ("shared_zeros", "zeros"), ("shared_ones", "ones")):
        assert getattr(sharedmem, old) is getattr(sharedmem, new)
        assert getattr(sharedmem, old)((2, 3), dtype=np.float32, order="F").strides == (4, 8)
    assert type(sharedmem.cleanup()) is int


def test_modules_of_the_first_version():
    from sharedmem.array import shared_empty, shared_ones, shared_zeros
    from sharedmem.heap import cleanup

    assert [shared_empty, shared_ones, shared_zeros] == [sharedmem.empty, sharedmem.ones, sharedmem.zeros]
    assert cleanup is sharedmem.cleanup
    with pytest.raises(ImportError, match="no_such_name"):
        from sharedmem.array import no_such_name  # noqa: F401


def write_nines(wrapper):
    ctypes.memset(wrapper.get_address(), 9, wrapper.get_size())


def test_a_buffer_goes_to_another_process(context):
    wrapper = BufferWrapper(10**5)
    process = context.Process(target=write_nines, args=(wrapper,))
    process.start()
    assert support.join(process) == [0]
    assert wrapper.get_size() == 10**5
    assert ctypes.string_at(wrapper.get_address(), wrapper.get_size()) == b"\x09" * 10**5
    with pytest.raises(TypeError):
        BufferWrapper("many")


def test_cleanup_leaves_living_arrays_alone():
    a = sharedmem.ones(10**6)
    sharedmem.cleanup()
    assert a.sum() == 10**6


def test_multiprocessing_is_what_it_was(context):
    """Neither module changes how ordinary objects travel or how processes end."""
    queue = multiprocessing.SimpleQueue()
    queue.put(np.arange(3))
    assert queue.get().tolist() == [0, 1, 2]
    queue.close()
    assert type(pickle.loads(pickle.dumps(np.arange(3)))) is np.ndarray
