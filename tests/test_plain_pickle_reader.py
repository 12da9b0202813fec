"""The reader of plain pickles, on any bytes: it gives what the pickle module gives, or the same error."""

import gc
import io
import pickle
import sys
import sysconfig

import hypothesis
import hypothesis.strategies as st
import pytest

import sharedmem
import sharedmem._transfers.messages


class Given(io.BytesIO):
    """Loaded in place of an object that a pickler would have written."""

    pickled = b""

    def getvalue(self):
        return Given.pickled


@pytest.fixture(scope="module", autouse=True)
def any_bytes():
    """Messages whose pickle a pickler writes hold `Given.pickled` instead."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharedmem._transfers.messages, "BytesIO", Given)
        yield


def load(queue, pickled):
    Given.pickled = pickled
    queue.put({"not plain"})
    return queue.get()


def shape(value, met):
    """Types and values of all that is in it, and which containers are one object."""
    if isinstance(value, (list, tuple, dict)) and value != ():
        if id(value) in met:
            return "again", met[id(value)]
        met[id(value)] = len(met)
    if isinstance(value, dict):
        return "dict", [(shape(k, met), shape(v, met)) for k, v in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [shape(each, met) for each in value]
    return type(value).__name__, repr(value)


def outcome(function, *args):
    try:
        return shape(function(*args), {})
    except Exception as error:
        return type(error).__name__, str(error)


def with_size(opcode, bytes_of_size):
    return st.binary(max_size=9).map(lambda data: opcode + len(data).to_bytes(bytes_of_size, "little") + data)


opcodes = st.one_of(
    st.sampled_from([bytes([code]) for code in b"((NNK]})aesut012.\x85\x86\x87\x88\x89\x94"]),
    st.sampled_from(
        [b"\x80\x05", b"K\x01", b"K\x02", b"h\x00", b"q\x00", b"X\x00\x00", b"\x8c\x03\xed\xa0\x80"]
    ),
    st.binary(min_size=1, max_size=1).map(lambda data: b"K" + data),
    st.binary(min_size=2, max_size=2).map(lambda data: b"M" + data),
    st.binary(min_size=4, max_size=4).map(lambda data: b"J" + data),
    st.binary(min_size=8, max_size=8).map(lambda data: b"G" + data),
    st.binary(min_size=8, max_size=8).map(lambda data: b"\x95" + data),
    st.integers(0, 12).map(lambda n: b"\x95" + n.to_bytes(8, "little")),
    *(with_size(opcode, 1) for opcode in (b"\x8a", b"\x8c", b"C")),
    *(with_size(opcode, 4) for opcode in (b"X", b"B")),
)
ends = st.sampled_from([b".", b"t.", b"\x85.", b"\x86.", b"e.", b"u.", b"s.", b"a.", b""])


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(st.tuples(st.lists(opcodes, max_size=12).map(b"".join), ends).map(b"".join))
def test_any_opcodes_give_what_the_pickle_module_gives(pickled):
    assert outcome(load, sharedmem.Queue(), pickled) == outcome(pickle.loads, pickled)


NUMBERS = [
    b"\x8a" + bytes([n]) + (last * n)[-n:] for n in range(1, 10) for last in (b"\x7f", b"\x80", b"\xff")
]


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b".",
        b"N",
        b"NN.",
        b"N.rest",
        b"(.",
        b"N(.",
        b"(N.",
        b"N(\x94t\x86.",  # memoizes the object below the mark
        b"N\x94.",
        b"\x94N.",
        b"\x95\x01" + bytes(7) + b"N.",
        b"\x95\x03" + bytes(7) + b"N.",  # a frame that is longer than the rest
        b"\x95" + b"\xff" * 8 + b"N.",
        b"\x95" + bytes(6),
        b"\x80\x05N.",
        b"\x80\x06N.",
        b"\x80",
        b"N(\x85t.",  # would take what is below the mark
        b"NN(\x86Nt\x87.",
        b"]N(aNt\x87.",
        b"}NN(sNNt\x87.",
        b"N(K\x01\x86t.",
        b"\x85.",
        b"N\x86.",
        b"NN\x87.",
        b"]N(a.",
        b"](Na.",
        b"](NNe.",
        b"](e.",
        b"]e.",
        b"e.",
        b"Na.",
        b")Na.",
        b"}Na.",
        b"}(Nu.",
        b"}(NNNNu.",
        b"}(u.",
        b"}NNs.",
        b"}Ns.",
        b"}]Ns.",  # a key without a hash
        b"}(](Net\x85Nu.",
        b"}(K\x01K\x02\x88K\x03u.",
        b"](]}e.",
        b"(" * 8 + b"t" * 8 + b".",
        b"(" * 9 + b"t" * 9 + b".",
        b"(" * 8 + b"N" * 95 + b"t" * 8 + b".",
        b"(" + b"N" * 96 + b"t.",
        b"(" + b"N" * 97 + b"t.",
        b")" + b"\x85" * 300 + b".",
        b"X\xff\xff\xff\xff.",
        b"X\xff\xff\xff",
        b"B\xff\xff\xff\x7f.",
        b"\x8c\x02a",
        b"\x8c\x03\xed\xa0\x80.",
        b"\x8c\x01\xff.",
        b"C\x01",
        b"G" + bytes(7),
        b"G\x7f\xf8" + bytes(6) + b".",
        b"J\x00\x00\x00\x80.",
        b"J\xff\xff\xff\xff.",
        b"J\x00\x00\x00",
        b"M\xff\xff.",
        b"K\xff.",
        b"K",
        b"\x8a\x00.",
        b"\x8a\x02\x00.",
        b"\x8a",
        *(number + b"." for number in NUMBERS),
    ],
)
def test_the_same_or_the_same_error(pickled):
    assert outcome(load, sharedmem.Queue(), pickled) == outcome(pickle.loads, pickled)


def test_what_is_not_a_plain_pickle_leaves_nothing_behind():
    queue = sharedmem.Queue()
    texts = b"(\x8c\x09some text]](NK\x07\x8c\x07another}("
    failing = [
        texts,
        texts + b".",
        texts + b"\x8c\x01\xff.",
        texts + b"(" * 9,
        b"]" * 97,
        b"(" + b"]" * 97 + b"t",
        b"}(" + b"]]" * 3 + b"u.",
        b"](" + b"]" * 96,
    ]

    def lists(times):
        for _ in range(times):
            for pickled in failing:
                with pytest.raises((pickle.UnpicklingError, EOFError, TypeError, ValueError)):
                    load(queue, pickled + b"\x8c\xff")
        gc.collect()
        return sum(type(each) is list for each in gc.get_objects())

    before = lists(1)
    after = lists(100)
    assert after - before < 50, (before, after)


def test_no_object_of_a_message_is_kept():
    queue = sharedmem.Queue()

    def blocks(times):
        for _ in range(times):
            queue.put({"k": [1000, 1.5, "text", b"data", (1 << 40, [])], (5, "x"): {}})
            queue.get()
        gc.collect()
        return sys.getallocatedblocks()

    before = blocks(20)
    assert blocks(200) - before < 100


@pytest.mark.skipif(bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="the hooks are for the GIL")
def test_a_message_survives_refused_memory_or_raises():
    testcapi = pytest.importorskip("_testcapi")
    value = {"k": [1000, 1.5, "text", b"data", (1 << 40, [2000])], (500, "x"): {"y": ()}}
    queue = sharedmem.Queue()
    queue.put(value)
    queue.get()
    arrived = 0
    for refused in range(60):
        queue.put(value)
        got = None
        try:
            testcapi.set_nomemory(refused, refused + 1)
            got = queue.get()
        except MemoryError:
            pass
        finally:
            testcapi.remove_mem_hooks()
        assert got is None or got == value
        assert queue.empty()
        arrived += got is not None
    assert arrived > 30  # the pickle module loads what the reader had no memory for
