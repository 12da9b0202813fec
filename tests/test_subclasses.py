"""Subclasses of SharedArray, and classes of NumPy over shared memory."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest
from support import TIMEOUT, address, roundtrip, settle

import sharedmem
from sharedmem import SharedArray, is_shared

# -- classes that are made by `ndarray.__new__(type(data), ...)`


def test_ndarray_makes_one_in_private_memory():
    made = np.ndarray.__new__(SharedArray, (2, 3), "i4")
    assert type(made) is SharedArray
    assert (made.shape, made.dtype) == ((2, 3), np.dtype("i4"))
    assert not is_shared(made)


class Plain(SharedArray):
    pass


@pytest.mark.parametrize("cls", [SharedArray, Plain])
@pytest.mark.parametrize("arguments", [(), (3,), ((2, 3), "f8"), ([1.5, 2],), (np.ones(3),)], ids=str)
def test_calling_the_class_is_refused(cls, arguments):
    with pytest.raises(TypeError):
        cls(*arguments)


def test_the_refusal_names_the_functions():
    for call in (lambda: SharedArray([1.5, 2]), lambda: SharedArray(shape=3), lambda: Plain((3,))):
        with pytest.raises(TypeError, match="cannot be created directly"):
            call()


class Marked(SharedArray):
    """NumPy's recipe for a constructor."""

    def __new__(cls, values, mark=None):
        self = sharedmem.asshared(values).view(cls)
        self.mark = mark
        return self

    def __array_finalize__(self, prototype):
        self.mark = getattr(prototype, "mark", None)


def test_a_subclass_with_a_constructor_can_be_called():
    marked = Marked([1, 2, 3], mark="x")
    assert (marked.mark, marked[1:].mark, sharedmem.zeros_like(marked).mark) == ("x",) * 3
    assert is_shared(marked)


@pytest.fixture(params=["plain mask", "shared mask"])
def masked(request):
    mask = [False, True, False]
    if request.param == "shared mask":
        mask = sharedmem.array(mask)
    return np.ma.masked_array(sharedmem.array([1.0, 2.0, 3.0]), mask)


MASKED = {
    "m + 1": lambda m: m + 1,
    "m.copy()": lambda m: m.copy() + 1,
    "deepcopy": lambda m: copy.deepcopy(m) + 1,
    "np.add": lambda m: np.add(m, 1),
    "in place": lambda m: m.__iadd__(1),
    "slice": lambda m: m[:] + 1,
    "pickled": lambda m: roundtrip(m) + 1,
    "pickled, protocol 2": lambda m: roundtrip(m, 2) + 1,
    "zeros_like": lambda m: np.ma.zeros_like(m) + [2, 3, 4],
}


@pytest.mark.parametrize("operation", MASKED)
def test_masked_arrays(masked, operation):
    result = MASKED[operation](masked)
    assert type(result) is np.ma.MaskedArray
    assert result.filled(0).tolist() == [2, 0, 4]
    assert result.mask.tolist() == [False, True, False]


def test_a_masked_array_is_a_view_of_the_shared_memory(masked):
    assert is_shared(masked.data)
    assert is_shared(masked[1:].data)
    assert is_shared(sharedmem.asshared(roundtrip(masked).data))


def add_one(a):
    return a + 1


VIEWS = {
    "matrix": lambda: sharedmem.ones((2, 2)).view(np.matrix),
    "recarray": lambda: sharedmem.zeros(3, [("x", "f8"), ("n", "i4")]).view(np.recarray),
    "chararray": lambda: sharedmem.array([b"ab", b"c"]).view(np.char.chararray),
    "masked": lambda: np.ma.masked_array(sharedmem.ones(3), [0, 1, 0]),
}


@pytest.mark.filterwarnings("ignore:The chararray class is deprecated:DeprecationWarning")
@pytest.mark.parametrize("view", VIEWS)
def test_views_of_other_classes_pickle_with_their_data(view):
    a = VIEWS[view]()
    assert is_shared(a)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        got = roundtrip(a, protocol)
        assert type(got) is type(a)
        assert not is_shared(got)
        assert (got.dtype, got.tolist()) == (a.dtype, a.tolist())


def test_they_go_through_pools(context):
    masked, matrix = VIEWS["masked"](), VIEWS["matrix"]()
    with context.Pool(1) as pool:
        results = [pool.apply_async(add_one, (a,)) for a in (masked, matrix)]
        got = [result.get(TIMEOUT) for result in results]
    assert got[0].tolist() == [2, None, 2]
    assert type(got[1]) is np.matrix
    assert got[1].tolist() == [[2, 2], [2, 2]]


# -- attributes that travel, as NumPy's users write it


class Extended(Marked):
    def __reduce__(self):
        function, arguments, state = super().__reduce__()
        return function, arguments, (*state, self.mark)

    def __setstate__(self, state):
        self.mark = state[-1]
        super().__setstate__(state[:-1])


class ExtendedEx(Marked):
    def __reduce_ex__(self, protocol):
        function, arguments, state = super().__reduce_ex__(protocol)
        return function, arguments, (*state, self.mark)

    def __setstate__(self, state):
        self.mark = state[-1]
        super().__setstate__(state[:-1])


class OfNumpy(np.ndarray):
    """The recipe for plain arrays, to be beside SharedArray in a class."""

    def __reduce__(self):
        function, arguments, state = super().__reduce__()
        return function, arguments, (*state, self.mark)

    def __setstate__(self, state):
        self.mark = state[-1]
        super().__setstate__(state[:-1])


class Mixed(OfNumpy, SharedArray):
    __array_finalize__ = Marked.__array_finalize__


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("cls", [Extended, Mixed])
def test_attributes_travel_with_a_handle(cls, protocol):
    a = sharedmem.array([1.0, 2.0, 3.0]).view(cls)
    a.mark = {"unit": "mm"}
    got = roundtrip(a, protocol)
    assert type(got) is cls
    assert got.mark == {"unit": "mm"}
    assert address(got) == address(a)
    with sharedmem.pickle_by_value():
        value = roundtrip(a, protocol)
    private = roundtrip(a.copy(), protocol)
    for copied in (value, private):
        assert type(copied) is cls
        assert (copied.mark, copied.tolist()) == (a.mark, a.tolist())
        assert not is_shared(copied)


def test_attributes_by_reduce_ex():
    a = sharedmem.ones((2, 3)).view(ExtendedEx)
    a.mark = 5
    got = roundtrip(a[:, ::2])
    assert (got.mark, got.shape, address(got)) == (5, (2, 2), address(a))


def test_they_arrive_in_another_process(context):
    a = Extended([1, 2], mark="x")
    with context.Pool(1) as pool:
        got = pool.apply_async(mark_of, (a,)).get(TIMEOUT)
    assert got == ("x", True)
    assert a.tolist() == [7, 2]


def mark_of(a):
    a[0] = 7
    return a.mark, is_shared(a)


@pytest.mark.filterwarnings("ignore:argument must be:DeprecationWarning")  # Python 3.14, of the list
def test_the_state_of_a_plain_array_is_set_as_ndarray_does():
    a = np.ndarray.__new__(SharedArray, 0)
    a.__setstate__(np.arange(3).__reduce__()[2])
    assert a.tolist() == [0, 1, 2]
    a.__setstate__(())
    assert a.tolist() == [0, 1, 2]
    for wrong in ((1,), [], None):
        with pytest.raises(TypeError):
            a.__setstate__(wrong)


# -- an `__array_finalize__` that raises


class Picky(SharedArray):
    refuses = False

    def __array_finalize__(self, prototype):
        if Picky.refuses:
            raise ValueError("refused")


def half_made(call):
    """The array whose `__array_finalize__` raised, as debuggers and crash reporters find it."""
    Picky.refuses = True
    try:
        call()
    except ValueError as error:
        traceback = error.__traceback__
        while traceback.tb_next:
            traceback = traceback.tb_next
        return traceback.tb_frame.f_locals["self"]
    finally:
        Picky.refuses = False
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("how", ["made", "loaded"])
@pytest.mark.parametrize("length", [1000, 1 << 18])
def test_a_half_made_array_keeps_its_memory(how, length):
    settle()
    before = sharedmem.stats()["live_blocks"]
    a = sharedmem.full(length, 5.0).view(Picky)
    data = pickle.dumps(a)
    calls = {"made": partial(sharedmem.full_like, a, 5.0), "loaded": partial(pickle.loads, data)}
    array = half_made(calls[how])
    del a, calls
    others = [sharedmem.full(length, float(n)) for n in range(10, 20)]
    assert (array == 5).all()
    array.view(np.ndarray)[:] = -1
    assert not any((other == -1).any() for other in others)
    del array, others
    settle()
    assert sharedmem.stats()["live_blocks"] == before
