"""`sharedmem.transport`: messages mean what pickling makes of them; their data goes through shared memory."""

import os
import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import plain_objects
import pytest
from support import check_python, dumps, run_python

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


@pytest.fixture
def on():
    with sharedmem.transport():
        yield


def counts():
    return sharedmem.stats()["transport"]


def sent(obj, protocol=None):
    """What arrives of an object, and how many messages carried data on the way."""
    before = counts()["messages"]
    message = bytes(ForkingPickler.dumps(obj, protocol))
    return pickle.loads(message), counts()["messages"] - before


def alike(a, b):
    """Whether two arrays differ in nothing but their addresses."""
    return (
        type(a) is type(b)
        and a.dtype == b.dtype
        and a.dtype.char == b.dtype.char
        and (a.dtype.metadata or None) == (b.dtype.metadata or None)  # older NumPy makes None to {}
        and a.dtype.isalignedstruct == b.dtype.isalignedstruct
        and a.shape == b.shape
        and a.strides == b.strides
        and a.flags.writeable == b.flags.writeable
        and a.tobytes() == b.tobytes()
    )


# -- what arrives


@pytest.mark.parametrize("protocol", [None, 2, 3, 4, 5])
@pytest.mark.parametrize("dtype", [*plain_objects.DTYPES, np.dtype("f8", metadata={"unit": "m"})], ids=str)
def test_every_dtype_arrives_as_pickled(on, dtype, protocol):
    a = np.empty((128, 256), dtype)
    a[:] = plain_objects.array(dtype, (1, 1))[0, 0]
    a.reshape(-1)[1::3] = plain_objects.array(dtype, (1, 7))[0, 5]
    got, carried = sent(a, protocol)
    assert alike(got, pickle.loads(pickle.dumps(a, protocol)))
    assert not is_shared(got)
    assert got.flags.aligned
    native = a.dtype.isnative or a.dtype.fields is not None
    if native and a.nbytes >= 65536 and np.dtype(a.dtype.str).char == a.dtype.char:
        assert carried == 1


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("dtype", ["f8", plain_objects.DTYPES[-1]], ids=["float64", "structured"])
@pytest.mark.parametrize("name", plain_objects.layouts(plain_objects.array("f8")))
def test_every_layout_arrives_as_pickled(on, name, dtype, protocol):
    a = plain_objects.layouts(plain_objects.array(dtype, (300, 200)))[name]
    for obj in (a, [a]):
        expected = pickle.loads(pickle.dumps(obj, protocol))
        got, _ = sent(obj, protocol)
        pairs = zip([got], [expected], strict=True) if obj is a else zip(got, expected, strict=True)
        assert all(alike(x, y) for x, y in pairs)


def test_messages_below_the_limit_are_byte_for_byte_as_before(on):
    objects = {**plain_objects.arrays(), **plain_objects.others()}
    with sharedmem.pickle_by_value():  # as without the library: see test_unasked
        expected = {n: [dumps_by(o, p) for p in (None, 2, 3, 4, 5)] for n, o in objects.items()}
    assert {n: [dumps_by(o, p) for p in (None, 2, 3, 4, 5)] for n, o in objects.items()} == expected
    assert dumps(np.zeros(65535, "u1")) == pickle.dumps(np.zeros(65535, "u1"))
    _, carried = sent(np.zeros(65536, "u1"))
    assert carried == 1


def dumps_by(obj, protocol):
    return bytes(ForkingPickler.dumps(obj, protocol))


def test_arrays_of_objects_are_pickled(on):
    numbers = np.array([2**70, "x", None, (1, 2)] * 20_000, object)
    kinds = [numbers, np.zeros(20_000, [("n", "i8"), ("o", object)])]
    if hasattr(np.dtypes, "StringDType"):
        kinds.append(np.array(["text"] * 20_000, np.dtypes.StringDType()))
    for a in kinds:
        before = counts()
        assert dumps([a]) == pickle.dumps([a])
        assert dumps(a) == pickle.dumps(a)
        assert counts() == before


def test_what_arrives_is_private(on):
    a = np.ones(MIB)
    got, carried = sent({"a": a, "b": [a[::2], a.T]})
    assert carried == 1
    assert got["a"].flags.owndata
    assert got["a"].flags.writeable
    got["a"][:] = 5
    assert (a == 1).all()
    assert (got["b"][0] == 1).all()
    assert counts()["in_flight"] == 0


def test_an_array_that_is_there_twice_arrives_once(on):
    a = np.ones(MIB)
    got, _ = sent([a, a])
    assert got[0] is got[1]


def test_small_arrays_of_a_large_message_stay_in_it(on):
    arrays = [np.full(64, i, "i2") for i in range(3000)]
    before = sharedmem.stats()["leases"]
    message = dumps(arrays)
    assert sharedmem.stats()["leases"] == before
    assert all(alike(x, y) for x, y in zip(pickle.loads(message), arrays, strict=True))


def test_arrays_count_together(on):
    arrays = [np.full(4096, i, "u1") for i in range(100)]
    before = counts()
    message = dumps(arrays)
    after = counts()
    assert after["messages"] - before["messages"] == 1
    assert after["bytes"] - before["bytes"] == (100 - 15) * 4096  # the first fifteen are less than 64 KiB
    assert all(alike(x, y) for x, y in zip(pickle.loads(message), arrays, strict=True))


def test_private_arrays_of_the_class_are_carried_and_arrive_as_ndarrays(on):
    a = sharedmem.ones(MIB)[::2].copy()
    assert type(a) is sharedmem.SharedArray
    assert not is_shared(a)
    got, carried = sent([a])
    assert carried == 1
    assert type(got[0]) is np.ndarray
    assert (got[0] == 1).all()
    got, carried = sent(a)
    assert carried == 1
    assert type(got) is np.ndarray
    assert (got == 1).all()


def test_shared_arrays_still_travel_by_handle(on):
    a = sharedmem.zeros(MIB)
    b = np.asarray(a)
    got, carried = sent([a, b])
    assert carried == 0
    got[0][:] = 1
    got[1][:10] = 2
    assert (a[:10] == 2).all()
    assert (a[10:] == 1).all()


def test_objects_that_cannot_be_pickled_raise_what_pickling_raises(on):
    thing = [np.ones(MIB), lambda: 0]
    with pytest.raises(Exception) as expected:
        pickle.dumps(thing)
    before = sharedmem.stats()["leases"]
    with pytest.raises(type(expected.value)) as met:
        dumps(thing)
    assert str(met.value) == str(expected.value)
    assert sharedmem.stats()["leases"] == before
    assert counts()["in_flight"] == 0


@pytest.mark.parametrize("alone", [True, False])
def test_what_is_written_after_pickling_is_not_sent(on, alone):
    a = np.ones(MIB)
    message = dumps(a if alone else {"a": a, "b": a[::2]})
    a[:] = 7
    got = pickle.loads(message)
    for each in [got] if alone else got.values():
        assert (each == 1).all()


def test_a_message_is_loaded_once(on):
    message = dumps(np.ones(MIB))
    pickle.loads(message)
    with pytest.raises(sharedmem.StaleHandleError, match=r"freed|loaded"):
        pickle.loads(message)


def test_a_message_that_is_not_loaded_is_given_up_by_revoke(on):
    message = dumps([np.ones(MIB)])
    assert counts()["in_flight"] >= 8 * MIB
    assert sharedmem.revoke(0) == 1
    assert counts()["in_flight"] == 0
    with pytest.raises(sharedmem.StaleHandleError):
        pickle.loads(message)


def test_without_the_second_copy_large_arrays_arrive_in_shared_memory():
    with sharedmem.transport(copy=False):
        a = [np.ones(MIB), np.asfortranarray(np.ones((512, 512))), np.ones(MIB // 8 - 1)]
        got, carried = sent(a)
    assert carried == 1
    assert [is_shared(x) for x in got] == [True, True, False]
    assert all(alike(x, y) for x, y in zip(got, a, strict=True))
    got[0][:] = 3
    assert (a[0] == 1).all()
    again = pickle.loads(dumps(got[0]))
    again[:] = 4
    assert (got[0] == 4).all()


# -- settings


def test_a_call_sets_it_and_close_gives_the_former_back():
    assert dumps(np.ones(MIB)) == pickle.dumps(np.ones(MIB))
    first = sharedmem.transport()
    try:
        assert len(dumps(np.ones(MIB))) < 1000
        with sharedmem.transport(64 * MIB):
            assert len(dumps(np.ones(MIB))) > MIB
        assert len(dumps(np.ones(MIB))) < 1000
    finally:
        first.close()
    first.close()
    assert dumps(np.ones(MIB)) == pickle.dumps(np.ones(MIB))
    with pytest.raises(ValueError, match="already been restored"), first:
        pass
    sharedmem.revoke(0)


def test_repr():
    with sharedmem.transport(1000, copy=False, max_in_flight=5) as made:
        assert repr(made) == "transport(1000, copy=False, max_in_flight=5)"


@pytest.mark.parametrize(
    ("args", "keywords", "error", "text"),
    [
        ((0,), {}, ValueError, "min_bytes"),
        ((-1,), {}, ValueError, "min_bytes"),
        ((1 << 64,), {}, ValueError, "min_bytes"),
        ((1.5,), {}, TypeError, "min_bytes"),
        ((True,), {}, TypeError, "min_bytes"),
        (("64",), {}, TypeError, "min_bytes"),
        ((None,), {}, TypeError, "min_bytes"),
        ((), {"max_in_flight": -1}, ValueError, "max_in_flight"),
        ((), {"max_in_flight": 0.5}, TypeError, "max_in_flight"),
        ((), {"copy": 1}, TypeError, "copy"),
        ((), {"copy": None}, TypeError, "copy"),
        ((1, False), {}, TypeError, "positional"),
    ],
)
def test_invalid_settings(args, keywords, error, text):
    with pytest.raises(error, match=text):
        sharedmem.transport(*args, **keywords)
    assert dumps(np.ones(MIB)) == pickle.dumps(np.ones(MIB))


def test_numpy_integers_are_numbers():
    with sharedmem.transport(np.int64(1000), max_in_flight=np.uint8(0)):
        pass


ON = """
import numpy as np, sharedmem
from multiprocessing.reduction import ForkingPickler
print(len(ForkingPickler.dumps(np.ones(1 << {size}, "u1"))) < 1000, end=" ")
sharedmem.revoke(0)
"""


@pytest.mark.parametrize(
    ("text", "at_64_kib", "at_1_mib"),
    [
        ("", False, False),
        ("0", False, False),
        ("1", True, True),
        ("min_bytes=1MiB", False, True),
        ("copy=0", True, True),
        (" max_in_flight = 100KiB , min_bytes=1", True, False),
    ],
)
def test_the_environment_variable(text, at_64_kib, at_1_mib):
    said = check_python(ON.format(size=16) + ON.format(size=20), SHAREDMEM_TRANSPORT=text)
    assert said.split() == [str(at_64_kib), str(at_1_mib)]


def test_other_programs_that_are_started_have_it_too():
    code = ON.format(size=16)
    with sharedmem.transport():
        assert check_python(code, related=True) == "True"
        with sharedmem.transport(min_bytes=1 << 30):
            assert check_python(code, related=True) == "False"
    assert check_python(code, related=True) == "False"


@pytest.mark.parametrize(
    "text", ["yes", "min_bytes=0", "min_bytes=", "copy=2", "copy=1KiB", "size=3", ",", "1,1"]
)
def test_a_variable_that_means_nothing(text):
    status, _, err = run_python("import sharedmem", SHAREDMEM_TRANSPORT=text)
    assert status == 1
    last = err.decode().strip().splitlines()[-1]
    assert last.startswith("ValueError: SHAREDMEM_TRANSPORT: ")
    assert text in last or "min_bytes" in last
