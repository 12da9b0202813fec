"""Small plain objects, which are pickled and loaded without a pickler: as the pickle module does it."""

import io
import math
import pickle
from multiprocessing.reduction import ForkingPickler

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import sharedmem

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(1 << 65), 1 << 65)
    | st.sampled_from(
        [s * (1 << n) + d for s in (1, -1) for n in (7, 8, 15, 16, 31, 32, 63) for d in (-1, 0, 1)]
    )
    | st.floats()
    | st.text(max_size=300)
    | st.binary(max_size=300)
)
keys = st.none() | st.integers() | st.text(max_size=5) | st.binary(max_size=5) | st.tuples(st.integers())


def containers(inside):
    return (
        st.lists(inside, max_size=6)
        | st.lists(inside, max_size=6).map(tuple)
        | st.dictionaries(keys, inside, max_size=6)
    )


plain = st.recursive(leaves, containers, max_leaves=30)


def assert_same(got, expected):
    assert type(got) is type(expected)
    if isinstance(expected, (list, tuple)):
        assert len(got) == len(expected)
        for a, b in zip(got, expected, strict=True):
            assert_same(a, b)
    elif isinstance(expected, dict):
        for (k, v), (key, value) in zip(got.items(), expected.items(), strict=True):
            assert_same(k, key)
            assert_same(v, value)
    elif isinstance(expected, float):
        assert got == expected or (math.isnan(got) and math.isnan(expected))
        assert math.copysign(1, got) == math.copysign(1, expected)
    else:
        assert got == expected


@hypothesis.given(plain)
def test_it_arrives_through_a_queue(value):
    queue = sharedmem.Queue()
    queue.put(value)
    assert_same(queue.get(), value)
    queue.put_many([value, value])
    for got in queue.get_many():
        assert_same(got, value)


@hypothesis.given(plain, st.sampled_from([None, 0, 1, 2, 3, 4, 5, -1]))
def test_a_message_of_multiprocessing_has_the_bytes_that_it_always_had(value, protocol):
    file = io.BytesIO()
    pickle.Pickler(file, protocol).dump(value)
    assert bytes(ForkingPickler.dumps(value, protocol)) == file.getvalue()


@pytest.mark.parametrize("bits", [7, 8, 15, 16, 24, 31, 32, 40, 48, 56, 62, 63, 64, 65])
def test_integers_at_the_borders_arrive(bits):
    queue = sharedmem.Queue()
    for sign in (1, -1):
        for d in (-1, 0, 1):
            queue.put(sign * (1 << bits) + d)
            assert queue.get() == sign * (1 << bits) + d


def test_what_occurs_twice_arrives_as_one_object():
    queue = sharedmem.Queue()
    text, data, pair, numbers, table = "text" * 3, b"data" * 3, (1000, 2000), [3], {"k": 4}
    for each in (text, data, pair, numbers, table):
        for twice in ((each, each), [each, (each,)], {"a": each, "b": [each]}):
            queue.put(twice)
            got = queue.get()
            assert got == twice
            first, second = got.values() if isinstance(got, dict) else got
            inner = second[0] if isinstance(twice, dict) or second != first else second
            assert first is inner


@pytest.mark.parametrize("others", [21, 22, 23, 24, 25, 60])
def test_what_occurs_twice_among_many_arrives_as_one_object(others):
    queue = sharedmem.Queue()
    twice = "text" * 3
    queue.put([*(f"text {i}" for i in range(others)), twice, twice])
    got = queue.get()
    assert got[-1] is got[-2]


def test_what_contains_itself_arrives():
    queue = sharedmem.Queue()
    around = []
    around.append((around,))
    table = {}
    table["me"] = table
    queue.put(around)
    queue.put(table)
    got = queue.get()
    assert got[0][0] is got
    got = queue.get()
    assert got["me"] is got


@pytest.mark.parametrize(
    "value",
    [
        list(range(64)),
        list(range(65)),
        tuple(range(1000)),
        [[]] * 3,
        [[[[[[[[[1]]]]]]]]],
        [[[[[[[[[[[1]]]]]]]]]]],
        [list(range(60)), list(range(60))],
        [(i, list(range(i))) for i in range(12)],
        {i: str(i) for i in range(32)},
        {i: str(i) for i in range(33)},
        {(1, (2, 3)): [()]},
        "x" * 255,
        "x" * 256,
        b"x" * 255,
        b"x" * 256,
        "x" * 1010,
        "x" * 1024,
        "x" * 5000,
        "\ud800 alone, \xe9, \u20ac, \U0001f600",
        -0.0,
        (math.inf, -math.inf),
        (True, 1, 1.0),
    ],
    ids=lambda v: repr(v)[:20],
)
def test_at_the_limits(value):
    queue = sharedmem.Queue()
    for _ in range(2):
        queue.put(value)
        assert_same(queue.get(), value)
    assert bytes(ForkingPickler.dumps(value)) == pickle.dumps(value)


def test_kinds_of_their_own_keep_their_kind():
    queue = sharedmem.Queue()
    class_of = {}
    for base in (int, float, str, bytes, tuple, list, dict):
        class_of[base] = Own[base]
    for base, cls in class_of.items():
        for value in (cls(), (cls(), 1), [cls()], {"k": cls()}):
            queue.put(value)
            assert_same(queue.get(), value)
            got = pickle.loads(ForkingPickler.dumps(value))
            assert_same(got, value)
        assert cls.__name__ == f"Own{base.__name__}"


class Ownint(int):
    pass


class Ownfloat(float):
    pass


class Ownstr(str):
    pass


class Ownbytes(bytes):
    pass


class Owntuple(tuple):
    pass


class Ownlist(list):
    pass


class Owndict(dict):
    pass


Own = {
    int: Ownint,
    float: Ownfloat,
    str: Ownstr,
    bytes: Ownbytes,
    tuple: Owntuple,
    list: Ownlist,
    dict: Owndict,
}


@pytest.mark.parametrize("nbytes", [0, 80, 1023, 1024, 60 << 10, (64 << 10) - 8, 64 << 10])
@pytest.mark.parametrize("on", [False, True])
def test_a_small_array_has_the_bytes_that_it_always_had(nbytes, on):
    def check():
        for array in (
            np.arange(nbytes // 8, dtype="f8"),
            np.zeros((nbytes // 16, 2), order="F"),
            np.zeros(nbytes // 8, dtype="M8[s]"),
            np.zeros(nbytes // 8, dtype=[("a", "i4"), ("b", ">f4")])[::2],
        ):
            if on and array.nbytes >= 64 << 10:
                assert_same(pickle.loads(ForkingPickler.dumps(array)).tolist(), array.tolist())
            else:
                assert bytes(ForkingPickler.dumps(array)) == pickle.dumps(array)

    if on:
        with sharedmem.transport():
            check()
    else:
        check()


def test_an_array_of_objects_that_hold_shared_arrays_takes_its_leases():
    array = np.empty(1, dtype=object)
    array[0] = sharedmem.ones(3)
    message = ForkingPickler.dumps(array)
    del array
    assert pickle.loads(message)[0].sum() == 3


@hypothesis.given(st.data())
def test_a_queue_loads_what_the_pickle_module_loads(data):
    """Pickles of the pickle module, which the queue's reader gets if the queue's writer needed a pickler."""
    queue = sharedmem.Queue()
    value = data.draw(st.lists(plain, min_size=1, max_size=4).map(lambda v: (v, v)))
    queue.put(value)
    got = queue.get()
    assert_same(got, value)
    assert got[0] is got[1]
