"""Calls with too many and unknown arguments: errors that speak of what was called, and of what fits."""

import inspect
import re

import pytest

import sharedmem
import shmarray
from sharedmem import atomics

MANY = (object(),) * 12
#: Names that begin with an underscore, except `Class.__init__` and `Class.__new__`, which Python itself uses.
PRIVATE = re.compile(r"(?<![\w.])_\w+|\._(?!_init__|_new__)\w+")
#: They take any arguments, as exceptions and functions that pass them on do.
TAKE_ALL = {"StaleHandleError", "RawValue", "Value"}


def functions_and_classes():
    for module in (sharedmem, shmarray, atomics):
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isclass(thing) or inspect.isroutine(thing):
                yield pytest.param(thing, id=f"{module.__name__}.{name}")


def methods():
    made = (
        sharedmem.allocator,
        sharedmem.Condition,
        sharedmem.Event,
        sharedmem.JoinableQueue,
        sharedmem.Latest,
        sharedmem.Lock,
        sharedmem.Queue,
        sharedmem.RLock,
        sharedmem.SimpleQueue,
    )
    for kind in made:
        for name in dir(kind):
            if not name.startswith("_") and inspect.isroutine(getattr(kind, name)):
                yield pytest.param(kind, name, id=f"{kind.__name__}.{name}")


def refusals(function):
    """What a call with unknown names, and one with far too many arguments, raises."""
    with pytest.raises(TypeError) as error:
        function(no_such_argument=1)
    yield str(error.value)
    if getattr(function, "__name__", "") not in TAKE_ALL:
        with pytest.raises(TypeError) as error:
            function(*MANY)
        yield str(error.value)


def check(message):
    assert "__cinit__" not in message
    assert not PRIVATE.search(message), message


@pytest.mark.parametrize("thing", list(functions_and_classes()))
def test_a_function_or_class_says_what_is_wrong_without_private_names(thing):
    for message in refusals(thing):
        check(message)


@pytest.mark.parametrize(("kind", "name"), list(methods()))
def test_a_method_says_what_is_wrong_without_private_names(kind, name):
    for message in refusals(getattr(kind(), name)):
        check(message)


@pytest.mark.parametrize("kind", [sharedmem.Event, sharedmem.Lock, sharedmem.RLock])
def test_errors_of_classes_that_take_only_a_name(kind):
    for call in (lambda: kind(5), lambda: kind(5, name="x")):
        with pytest.raises(TypeError, match=rf"^{kind.__name__}\(\) takes no positional .*it takes name="):
            call()
    with pytest.raises(TypeError, match=rf"^{kind.__name__}\(\) got .*'title'; it takes name="):
        kind(title="x")
    assert str(inspect.signature(kind)) == "(*, name=None)"


@pytest.mark.parametrize("kind", [sharedmem.Queue, sharedmem.JoinableQueue])
def test_queues_say_what_they_take(kind):
    with pytest.raises(TypeError, match=rf"^{kind.__name__}\(\) takes at most 1 .*\(2 given\).*maxsize"):
        kind(1, 2)
    with pytest.raises(TypeError, match=rf"^{kind.__name__}\(\) got .*'size'; it takes maxsize and ctx="):
        kind(size=1)
    with pytest.raises(TypeError, match="multiple values for argument 'maxsize'"):
        kind(1, maxsize=2)
    assert kind(maxsize=2, ctx=None).maxsize == kind(2).maxsize == 2


def test_a_subclass_of_a_queue_is_called_by_its_own_name():
    class Mine(sharedmem.SimpleQueue):
        pass

    with pytest.raises(TypeError, match=r"^Mine\(\) takes no .* \(1 given\); it takes ctx="):
        Mine(5)
