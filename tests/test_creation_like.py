"""empty_like, zeros_like, ones_like, full_like: shape and layout of a prototype."""

import numpy as np
import pytest
from samples import DTYPES, VIEWS, name, sample
from support import same
from test_creation import check_like, error_of

import sharedmem

LIKE = ["empty_like", "zeros_like", "ones_like"]

PROTOTYPES = {
    "C": lambda: sample((3, 4)),
    "F": lambda: sample((3, 4), order="F"),
    "permuted": lambda: sample((2, 3, 4)).transpose(1, 2, 0),
    "reversed": lambda: sample((4, 5))[::-1, ::-2],
    "broadcast": lambda: np.broadcast_to(sample(4), (3, 4)),
    "gaps": lambda: sample((6, 8))[::2, ::3],
    "0-d": lambda: sample(()),
    "size 0": lambda: sample((2, 0)),
    "list": lambda: [[1, 2], [3, 4]],
    "number": lambda: 2.5,
}


@pytest.mark.parametrize("order", ["K", "C", "F", "A"])
@pytest.mark.parametrize("prototype", PROTOTYPES)
@pytest.mark.parametrize("maker", LIKE)
def test_equal_to_numpy(maker, prototype, order):
    prototype = PROTOTYPES[prototype]()
    expected = getattr(np, maker)(prototype, order=order)
    got = getattr(sharedmem, maker)(prototype, order=order)
    check_like(got, expected, values=maker != "empty_like")


@pytest.mark.parametrize("maker", LIKE)
def test_of_shared_arrays_is_shared_again(maker):
    a = sharedmem.asshared(sample((6, 12)))
    for view in VIEWS.values():
        expected = getattr(np, maker)(np.asarray(view(a)))
        check_like(getattr(sharedmem, maker)(view(a)), expected, values=maker != "empty_like")


@pytest.mark.parametrize("maker", LIKE)
def test_options(maker):
    prototype = sample((3, 4), "i2", "F")
    make, numpys = getattr(sharedmem, maker), getattr(np, maker)
    for options in (
        {"dtype": "f4"},
        {"shape": (2, 5)},
        {"shape": 6},
        {"shape": (2, 3, 4)},
        {"dtype": ">i4", "order": "C", "shape": (4, 3)},
        {"subok": False},
    ):
        check_like(make(prototype, **options), numpys(prototype, **options), maker != "empty_like")
    check_like(
        make(prototype, "f8", "C", False, (2, 2)),
        numpys(prototype, "f8", "C", False, (2, 2)),
        maker != "empty_like",
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
def test_dtype_of_the_prototype(dtype):
    check_like(sharedmem.zeros_like(sample((2, 3), dtype)), np.zeros_like(sample((2, 3), dtype)))


def test_full_like():
    prototype = sample((3, 4), "i2", "F")
    check_like(sharedmem.full_like(prototype, 7), np.full_like(prototype, 7))
    check_like(sharedmem.full_like(prototype, 7.9), np.full_like(prototype, 7.9))
    check_like(sharedmem.full_like(prototype, [1, 2, 3, 4]), np.full_like(prototype, [1, 2, 3, 4]))
    check_like(
        sharedmem.full_like(prototype, 0.5, "f4", "C", True, (2, 2)),
        np.full_like(prototype, 0.5, "f4", "C", True, (2, 2)),
    )


def test_full_like_casts_as_numpy_does():
    expected = error_of(np.full_like, sample(3, "i2"), "x")
    assert type(error_of(sharedmem.full_like, sample(3, "i2"), "x")) is type(expected)


@pytest.mark.parametrize("maker", LIKE)
def test_prototypes_with_objects_are_refused(maker):
    with pytest.raises(TypeError, match="object"):
        getattr(sharedmem, maker)(np.array([None, 1]))
    with pytest.raises(TypeError, match="who"):
        getattr(sharedmem, maker)(np.zeros(2, [("who", "O")]))


def test_prototype_is_left_alone():
    a = sharedmem.asshared(sample((3, 4)))
    sharedmem.zeros_like(a)
    sharedmem.full_like(a, 9)
    assert same(a, sample((3, 4)))
