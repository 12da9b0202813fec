"""Arrays that the kernel protects from being written to: `readonly`, and what travels from it."""

import copy
import gc
import multiprocessing
import os
import pickle

import attempts
import numpy as np
import pytest
import workers
from forging import Forgery
from support import KINDS, Remote, address, check_python, in_fork, join, needs_namespaces, run_python, same

import sharedmem
from sharedmem import readonly
from sharedmem.array import _load


class Named(sharedmem.SharedArray):
    """With an attribute that travels."""

    name = None

    def __array_finalize__(self, obj):
        self.name = getattr(obj, "name", None)

    def __reduce__(self):
        load, args, _ = super().__reduce__()
        return load, args, (self.name,)

    def __setstate__(self, state):
        (self.name,) = state


def filled(shape=(30, 4), dtype="f8"):
    a = sharedmem.empty(shape, dtype)
    a.reshape(-1)[:] = np.arange(a.size)
    return a


def test_it_is_the_same_memory_and_no_copy():
    a = filled()
    r = readonly(a)
    assert type(r) is sharedmem.SharedArray
    assert same(r, a)
    assert address(r) != address(a)
    a[3, 1] = -1
    assert r[3, 1] == -1
    assert sharedmem.is_shared(r)
    assert readonly(r) is r
    assert sharedmem.asshared(r) is r


def test_all_attempts_to_write_fail_and_change_nothing():
    a = filled()
    before = a.copy()
    r = readonly(a)
    assert attempts.outcomes(r) == attempts.EXPECTED
    assert attempts.outcomes(r[5:][::-2].T) == attempts.EXPECTED
    assert (a == before).all()


def test_the_same_attempts_succeed_with_the_numpy_flag_only():
    """Otherwise the test above would prove nothing."""
    a = filled()
    a.flags.writeable = False
    assert attempts.outcome(attempts.by_a_pointer, a) == "done"
    assert a.view(np.uint8)[0, 0] == 1
    assert attempts.outcome(attempts.by_mprotect, a) == "done"


def test_the_base_gives_no_way_to_write():
    r = readonly(filled())
    base = r.base
    assert not isinstance(base, np.ndarray)
    assert [name for name in dir(base) if not name.startswith("__")] == []
    with pytest.raises(TypeError):
        memoryview(base)
    with pytest.raises(ValueError):
        np.ndarray.setflags(r, write=True)


@pytest.mark.parametrize("kind", KINDS)
def test_it_arrives_read_only_in_any_process_and_stays_so_when_forwarded(kind):
    a = filled()
    before = a.copy()
    r = readonly(a)
    expected = (attempts.EXPECTED, attempts.EXPECTED, False)
    with Remote(kind) as first, Remote("unrelated") as second:
        assert first.call(attempts.try_to_write, r) == expected
        back = first.call(attempts.send_on, r)
        assert same(back, a[::-1])
        assert address(back) == address(r[::-1])
        assert second.call(attempts.try_to_write, back) == expected
        first.call(workers.store, a, (0, 0), 7.0)
        assert r[0, 0] == back[-1, 0] == 7
        assert second.call(workers.item, r[:1], (0, 0)) == 7
    assert (a.reshape(-1)[1:] == before.reshape(-1)[1:]).all()


def take(queue, results):
    while (a := queue.get()) is not None:
        results.put((attempts.outcome(attempts.by_a_pointer, a), np.array(a)))


def test_by_queues_and_pools(context):
    r = readonly(filled())
    refused = attempts.REFUSED[attempts.by_mprotect]
    queue, results = context.SimpleQueue(), context.SimpleQueue()
    worker = context.Process(target=take, args=(queue, results))
    worker.start()
    for view in (r[2], r[::-3, 1:3], r[4:5].T):
        queue.put(view)
        outcome, copied = results.get()
        assert outcome == attempts.REFUSED[attempts.by_a_pointer]
        assert (copied == view).all()
    queue.put(None)
    assert join(worker) == [0]
    with context.Pool(1) as pool:
        assert pool.apply(attempts.outcome, (attempts.by_mprotect, r[1:])) == refused


def test_a_forked_child_has_it_too():
    a = filled()
    r = readonly(a)

    def child():
        assert attempts.outcomes(r) == attempts.EXPECTED
        a[0, 0] = 50
        assert r[0, 0] == 50

    assert in_fork(child) == 0
    assert r[0, 0] == 50


def test_a_child_makes_its_own_mapping_after_the_fork():
    a = sharedmem.ones(5)
    assert (
        in_fork(lambda: attempts.outcome(attempts.by_a_pointer, readonly(a)) == "SIGSEGV" or os._exit(3)) == 0
    )


@pytest.mark.parametrize(
    "view",
    [lambda a: a[3], lambda a: a[::-1], lambda a: a.T, lambda a: a[1::2, ::-1], lambda a: a[2, 1:2]],
    ids=["row", "reversed", "transposed", "both", "slice"],
)
def test_views_travel_with_their_strides(view):
    a = filled()
    r = view(readonly(a))
    plain = readonly(np.asarray(view(a)))
    assert type(plain) is sharedmem.SharedArray
    for b in (r, plain, readonly(view(a))):
        loaded = pickle.loads(pickle.dumps(b))
        assert same(loaded, b)
        assert address(loaded) == address(b)
        assert loaded.strides == view(a).strides
        assert not loaded.flags.writeable


def test_writable_and_read_only_views_in_one_message():
    a = filled()
    r = readonly(a)
    leases = sharedmem.stats()["leases"]
    receiving, sending = multiprocessing.Pipe(False)
    sending.send([a, r, a[1:], r[1:], a.T, r.T, r])
    assert sharedmem.stats()["leases"] <= leases + 2
    got = receiving.recv()
    assert [b.flags.writeable for b in got] == [True, False, True, False, True, False, False]
    for b, sent in zip(got, [a, r, a[1:], r[1:], a.T, r.T, r], strict=True):
        assert address(b) == address(sent)
        assert b.strides == sent.strides
    receiving.close()
    sending.close()


def test_copies_can_be_written_and_views_not():
    r = readonly(filled())
    copies = [
        r.copy(),
        r.astype("i4"),
        r + 0,
        copy.deepcopy(r),
        sharedmem.copy(r),
        sharedmem.array(r),
        r[[0, 1]],
        sharedmem.asshared(r, "f4"),
        np.array(r),
        sharedmem.empty_like(r),
    ]
    assert all(c.flags.writeable for c in copies)
    for c in copies:
        c[...] = 1
    for v in (
        np.asarray(r),
        r.view(),
        r.view("i8"),
        r[...],
        r.reshape(-1),
        memoryview(r),
        r.view(np.ndarray),
    ):
        assert np.asarray(v).flags.writeable is False
        assert (
            attempts.outcome(attempts.by_a_pointer, np.asarray(v)) == attempts.REFUSED[attempts.by_a_pointer]
        )
    assert r[1, 0] == 4


def test_it_keeps_the_memory_alive_and_lets_it_go():
    gc.collect()
    before = sharedmem.stats()["live_blocks"]
    r = readonly(filled((1000, 100)))
    again = [filled((1000, 100)) for _ in range(5)]
    assert r[999, 99] == 99_999
    assert sharedmem.stats()["live_blocks"] == before + 6
    loaded = pickle.loads(pickle.dumps(r[5:]))
    del r, again
    assert sharedmem.stats()["live_blocks"] == before + 1
    assert loaded[0, 0] == 500
    del loaded
    assert sharedmem.stats()["live_blocks"] == before


def test_the_memory_map_grows_by_one_line_per_segment():
    code = """
    import attempts, sharedmem
    from sharedmem import readonly  # loads a module, which is mapped
    arrays = [sharedmem.zeros(100) for _ in range(10_000)]
    before = attempts.maps()
    kept = [sharedmem.readonly(arrays[0])]
    print(attempts.maps() - before, end=" ")
    before = attempts.maps()
    kept += [sharedmem.readonly(a) for a in arrays]
    print(len(kept), attempts.maps() - before <= 1)  # the heap's own line may be new
    """
    assert check_python(code) == "1 10001 True"


EXTENSIONS = """
import attempts, pickle, sharedmem
from sharedmem import readonly  # loads a module, which is mapped
arrays = [sharedmem.full(1 << 20, n, "u1") for n in range(100)]
stats = sharedmem.stats()
before = attempts.maps()
read = [sharedmem.readonly(a) for a in arrays]
most = stats["segments"] + 1  # the heap's own line may be new
print(stats["backing"], stats["segments"] > 3, attempts.maps() - before <= most, end=" ")
assert all((r == n).all() for n, r in enumerate(read))
loaded = pickle.loads(pickle.dumps(read))
assert all((r == n).all() for n, r in enumerate(loaded))
assert all(r.ctypes.data == s.ctypes.data for r, s in zip(read, loaded))
print({attempts.outcome(attempts.by_a_pointer, r) for r in loaded}, end=" ")
print(attempts.outcomes(read[99]) == attempts.EXPECTED)
"""


def test_in_extension_segments():
    assert check_python(EXTENSIONS, SHAREDMEM_ARENA_SIZE="32MiB") == "sysv True True {'SIGSEGV'} True"


def test_in_memfds():
    needs_namespaces("--ipc")
    status, out, err = run_python(
        EXTENSIONS,
        prefix=["unshare", "--ipc"],
        shell="echo 0 > /proc/sys/kernel/shmmni || exit 77",
        SHAREDMEM_ARENA_SIZE="32MiB",
    )
    if status == 77:
        pytest.skip("the limit cannot be set here")
    assert (status, err.decode()) == (0, "")
    assert out.decode().strip() == "memfd True True {'SIGSEGV'} True"


def test_what_is_not_shared_is_refused():
    for a in (np.ones(3), sharedmem.ones(3).copy(), sharedmem.ones((3, 3))[[0, 1]], np.empty(0)):
        with pytest.raises(ValueError, match="not in shared memory"):
            readonly(a)
    for thing in ([1, 2], 5, None, b"abc"):
        with pytest.raises(TypeError, match="needs an array"):
            readonly(thing)


def test_bytes_outside_the_block_are_refused():
    a = sharedmem.ones(8)
    for inside in (a, readonly(a)):
        beyond = np.lib.stride_tricks.as_strided(inside, (1000,), (8,), subok=True)
        with pytest.raises(ValueError, match="not in shared memory"):
            readonly(beyond)
        assert not sharedmem.is_shared(pickle.loads(pickle.dumps(beyond)))


def test_arrays_without_elements_or_axes():
    for a in (sharedmem.zeros((3, 0)), sharedmem.ones(()), sharedmem.zeros(4, "V0")):
        r = readonly(a)
        assert (r.shape, r.dtype, r.flags.writeable) == (a.shape, a.dtype, False)
    refused = attempts.REFUSED[attempts.by_a_pointer]
    assert attempts.outcome(attempts.by_a_pointer, readonly(sharedmem.ones(()))) == refused


def test_a_subclass_keeps_its_class_and_attributes():
    a = sharedmem.ones(4).view(Named)
    a.name = "x"
    r = readonly(a)
    assert type(r) is Named
    assert r.name == "x"
    loaded = pickle.loads(pickle.dumps(r))
    assert type(loaded) is Named
    assert loaded.name == "x"
    for each in (r, loaded):
        assert attempts.outcome(attempts.by_a_pointer, each) == attempts.REFUSED[attempts.by_a_pointer]


@pytest.mark.parametrize(
    "dtype", ["?", "i1", ">i4", "c16", "U5", "S3", "M8[ns]", [("a", "i4"), ("b", ">f8")]]
)
def test_dtypes(dtype):
    a = sharedmem.zeros((3, 2), dtype)
    r = readonly(a)
    assert r.dtype == a.dtype
    loaded = pickle.loads(pickle.dumps(r.T))
    assert loaded.dtype == a.dtype
    assert address(loaded) == address(r)


def test_files_get_the_data(tmp_path):
    r = readonly(filled())
    with open(tmp_path / "a.pickle", "wb") as file:
        pickle.dump(r, file)
    with open(tmp_path / "a.pickle", "rb") as file:
        loaded = pickle.load(file)
    assert type(loaded) is np.ndarray
    assert (loaded == r).all()
    np.save(tmp_path / "a.npy", r)
    assert (np.load(tmp_path / "a.npy") == r).all()


def test_a_handle_that_says_both_is_refused():
    forged = Forgery(readonly(sharedmem.ones(3)).__reduce_ex__(4)[1][0])
    assert forged.fixed[1] & 33 == 32
    forged.fixed[1] |= 1
    with pytest.raises(ValueError, match="flags"):
        _load(forged.encode())


def test_no_address_space_is_an_error_and_loses_nothing():
    code = """
    import errno, resource, sharedmem
    a = sharedmem.full(1000, 3.0)
    arena = sharedmem.stats()["arena_bytes"]
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (used + arena // 2, hard))
    message = a.__reduce_ex__(4)
    try:
        sharedmem.readonly(a)
        print("made")
    except OSError as error:
        print(errno.errorcode[error.errno], end=" ")
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    print(sharedmem.readonly(a).sum(), (a == 3).all())
    """
    assert check_python(code, SHAREDMEM_ARENA_SIZE="256MiB") == "ENOMEM 3000.0 True"


def test_torch_gets_a_signal():
    torch = pytest.importorskip("torch")
    r = readonly(filled())
    with pytest.warns(UserWarning, match="not writable"):
        tensor = torch.from_numpy(r)
    assert attempts.outcome(lambda t: t.fill_(1), tensor) == "SIGSEGV"
    assert float(tensor[1, 1]) == 5
