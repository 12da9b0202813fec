"""Ordinary ndarrays over shared memory travel by handle, whatever contains them; all else is unchanged."""

import contextlib
import dataclasses
import io
import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.reduction import ForkingPickler

import numpy as np
import plain_objects
import pytest
from support import QUICKEST, TESTS, TIMEOUT, Remote, dumps, environment, settle

import sharedmem
from sharedmem import is_shared

#: Far less than the data of the arrays that are sent here.
FEW = 1000


def exact(shape=(100, 100), dtype="f8"):
    """An exact ndarray in shared memory."""
    return np.asarray(sharedmem.zeros(shape, dtype))


def exact_of(a):
    return np.asarray(sharedmem.asshared(a))


def plus_one(x):
    """Adds one to an array, wherever it is, and says what it was."""
    x += 1
    return type(x).__name__, is_shared(x), x.flags.writeable, x.strides


def give(x):
    return x


# -- what arrives


@pytest.mark.parametrize("name", plain_objects.layouts(plain_objects.array("f8")))
def test_every_layout_arrives_as_it_was(name):
    a = exact_of(plain_objects.array("f8"))
    sent = plain_objects.layouts(a)[name]
    got = pickle.loads(dumps(sent))
    assert type(got) is np.ndarray
    assert got.dtype == sent.dtype
    assert got.shape == sent.shape
    assert np.array_equal(got, sent)
    if is_shared(sent) and sent.size > 0:
        assert is_shared(got)
        assert got.strides == sent.strides
        assert got.flags.writeable == sent.flags.writeable


@pytest.mark.parametrize("dtype", plain_objects.DTYPES, ids=str)
def test_every_dtype_is_shared(dtype):
    a = exact_of(plain_objects.array(dtype, (40, 50)))
    got = pickle.loads(dumps(a))
    assert is_shared(got)
    assert type(got) is np.ndarray
    assert got.dtype == a.dtype
    got.view(np.uint8)[0, 0] ^= 1
    assert got.tobytes() == a.tobytes()


def test_a_read_only_array_stays_read_only():
    a = exact()
    a.flags.writeable = False
    got = pickle.loads(dumps(a))
    assert is_shared(got)
    with pytest.raises(ValueError, match="read-only"):
        got[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        got.flags.writeable = True


def test_what_arrives_keeps_the_memory():
    a = exact()
    a[:] = 3
    message = dumps({"a": a})
    del a
    got = pickle.loads(message)["a"]
    settle()
    others = [sharedmem.zeros((100, 100)) for _ in range(20)]
    assert (got == 3).all()
    del got, others


def test_views_of_one_block_have_two_leases_at_most():
    a = exact((1000, 10))
    before = sharedmem.stats()["leases"]
    message = dumps(list(a))
    assert sharedmem.stats()["leases"] - before == 2
    rows = pickle.loads(message)
    assert sharedmem.stats()["leases"] == before
    rows[999][:] = 5
    assert (a[999] == 5).all()


def test_a_message_that_fails_gives_its_leases_back():
    a = exact()
    before = sharedmem.stats()["leases"]
    with pytest.raises(Exception, match=r"local object|pickle"):
        dumps([a, lambda: 0])
    assert sharedmem.stats()["leases"] == before


def test_within_pickle_by_value_the_data_is_pickled():
    a = exact()
    with sharedmem.pickle_by_value():
        message = dumps(a)
        assert message == dumps(a.copy())
        assert dumps([a]) == dumps([a.copy()])
    assert not is_shared(pickle.loads(message))


def test_an_array_beyond_its_block_is_pickled_with_its_data():
    whole = sharedmem.zeros(4096, "u1")
    beyond = np.lib.stride_tricks.as_strided(np.asarray(whole), (2,), (1 << 30,), writeable=False)[:1]
    assert is_shared(pickle.loads(dumps(beyond)))  # one element, and that lies in it
    two = np.lib.stride_tricks.as_strided(np.asarray(whole), (2,), (whole.nbytes,), writeable=False)
    if not is_shared(two[1:]):
        pytest.skip("nothing of the arena lies beyond the block")
    assert not is_shared(pickle.loads(dumps(two)))


def test_a_pickler_of_the_program_writes_what_it_always_wrote():
    a, file, plain = exact(), io.BytesIO(), io.BytesIO()
    ForkingPickler(file).dump(a)
    ForkingPickler(plain).dump(a.copy())
    assert file.getvalue() == plain.getvalue()


def test_an_entry_that_a_program_has_registered_stays(monkeypatch):
    monkeypatch.setitem(ForkingPickler._extra_reducers, np.ndarray, lambda a: (str, ("mine",)))
    assert pickle.loads(dumps(exact())) == "mine"
    assert pickle.loads(dumps([exact()])) == ["mine"]


def test_the_class_and_copyreg_stay_as_they_are():
    import copyreg

    assert np.ndarray not in ForkingPickler._extra_reducers
    assert np.ndarray not in copyreg.dispatch_table
    dumps([exact()])
    assert np.ndarray not in ForkingPickler._extra_reducers
    assert np.ndarray not in copyreg.dispatch_table


# -- other objects


def test_pickles_of_all_else_are_byte_for_byte_as_without_the_library():
    command = [sys.executable, os.path.join(TESTS, "plain_objects.py")]
    without, with_it = (
        subprocess.run([*command, *module], capture_output=True, env=environment(), timeout=TIMEOUT)
        for module in ((), ("sharedmem",))
    )
    assert (without.returncode, without.stderr) == (0, b"")
    assert (with_it.returncode, with_it.stderr) == (0, b"")
    expected = without.stdout.decode().splitlines()
    assert len(expected) > 5 * 60
    assert [line for line in with_it.stdout.decode().splitlines() if line not in expected] == []
    assert with_it.stdout == without.stdout


# -- what carries them


@contextlib.contextmanager
def queue_like(context, make):
    answers = context.SimpleQueue()
    questions = make(context)
    worker = context.Process(target=answer_all, args=(questions, answers))
    worker.start()

    def call(function, x):
        questions.put((function, x))
        return answers.get()

    try:
        yield call
    finally:
        questions.put(None)
        worker.join(TIMEOUT)
        if hasattr(questions, "close"):
            questions.close()


def answer_all(questions, answers):
    while (task := questions.get()) is not None:
        function, x = task
        answers.put(function(x))


@contextlib.contextmanager
def pool(context):
    with context.Pool(1) as made:
        yield lambda function, x: made.apply(function, (x,))


@contextlib.contextmanager
def executor(context):
    with ProcessPoolExecutor(1, context) as made:
        yield lambda function, x: made.submit(function, x).result(TIMEOUT)


CARRIERS = {
    "Queue": lambda context: queue_like(context, lambda c: c.Queue()),
    "SimpleQueue": lambda context: queue_like(context, lambda c: c.SimpleQueue()),
    "Pool": pool,
    "ProcessPoolExecutor": executor,
}


@dataclasses.dataclass
class Frame:
    """What wraps an array in the tests below."""

    name: str
    array: np.ndarray


def add_in(frame):
    frame.array += 1
    return frame


@pytest.mark.parametrize("carrier", CARRIERS)
def test_arguments_and_results_are_the_same_memory(context, carrier):
    a = exact()
    with CARRIERS[carrier](context) as call:
        assert call(plus_one, a) == ("ndarray", True, True, a.strides)
        assert (a == 1).all()
        back = call(add_in, Frame("x", a[::2])).array
    assert type(back) is np.ndarray
    assert is_shared(back)
    assert (a[::2] == 2).all()
    assert (a[1::2] == 1).all()
    back[:] = 7
    assert (a[::2] == 7).all()


def write_into(frame):
    frame.loc[3, 0] = 5.0
    return frame


# Without fork each child has to import pandas; two carriers are enough there.
@pytest.mark.parametrize(
    ("method", "carrier"), [*(("fork", each) for each in CARRIERS), ("spawn", "ProcessPoolExecutor")]
)
def test_frames_over_a_shared_array_are_the_same_memory(method, carrier):
    pandas = pytest.importorskip("pandas")
    a = exact((1000, 3))
    frame = pandas.DataFrame(a, copy=False)
    assert len(dumps(frame)) < FEW
    sharedmem.revoke(0)
    with CARRIERS[carrier](multiprocessing.get_context(method)) as call:
        back = call(write_into, frame)
    assert a[3, 0] == 5
    back.loc[4, 1] = 6.0
    assert a[4, 1] == 6
    pandas.testing.assert_frame_equal(back, frame)


def test_frames_in_a_manager_of_this_host():
    pandas = pytest.importorskip("pandas")
    a = exact((1000, 3))
    with multiprocessing.get_context(QUICKEST).Manager() as manager:
        shelf = manager.dict(frame=pandas.DataFrame(a, copy=False))
        got = shelf["frame"]
        got.loc[3, 0] = 5.0
        assert a[3, 0] == 5
        a[4, 1] = 6
        assert shelf["frame"].loc[4, 1] == 6
        del got
        shelf.clear()


def make_in_worker(x):
    return {"made": np.asarray(sharedmem.full(x.shape, 4.0))}


def test_what_a_worker_makes_and_drops_arrives(context):
    with pool(context) as call:
        made = call(make_in_worker, exact())["made"]
    assert is_shared(made)
    assert (made == 4).all()


def fill_and_end(a, conn):
    a += 1
    conn.send(a)
    conn.close()


def test_arguments_of_a_process(context):
    a = exact()
    ours, theirs = context.Pipe(False)
    process = context.Process(target=fill_and_end, args=(a, theirs))
    process.start()
    got = ours.recv()
    process.join(TIMEOUT)
    assert process.exitcode == 0
    assert is_shared(got)
    assert (a == 1).all()
    assert (got == 1).all()
    ours.close()
    theirs.close()


def test_a_manager_of_this_host():
    a = exact()
    with multiprocessing.get_context("spawn").Manager() as manager:
        shelf = manager.dict()
        shelf["a"] = a
        got = shelf["a"]
        assert is_shared(got)
        got[:] = 9
        assert (a == 9).all()
        del got
        shelf.clear()


def test_an_unrelated_process_has_it_too():
    with Remote("unrelated") as remote:
        a = exact()
        assert remote.call(plus_one, a)[:2] == ("ndarray", True)
        assert (a == 1).all()


def test_messages_are_short():
    a = exact((1000, 1000))
    for wrapped in (a, [a], {"k": a}, Frame("x", a), (a.T, a[::3])):
        assert len(dumps(wrapped)) < FEW
