"""`copy` and `weakref` with what processes share: the same one, or a clear error."""

import copy
import gc
import weakref

import pytest

import sharedmem

KINDS = ["Lock", "RLock", "Event", "Condition", "Latest", "Queue", "JoinableQueue", "SimpleQueue"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_deep_copy_is_refused(kind):
    made = getattr(sharedmem, kind)()
    for thing in (made, [made], {"a": (made,)}):
        with pytest.raises(TypeError, match=f"a {kind} cannot be copied"):
            copy.deepcopy(thing)


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Condition"])
def test_a_shallow_copy_of_a_lock_is_the_same_one(kind):
    lock = getattr(sharedmem, kind)()
    other = copy.copy(lock)
    with lock:
        assert other._is_owned() if kind != "Condition" else other._lock._is_owned()


def test_a_shallow_copy_of_others_is_the_same_one():
    event, queue, latest = sharedmem.Event(), sharedmem.Queue(), sharedmem.Latest()
    copy.copy(event).set()
    copy.copy(queue).put(1)
    assert event.is_set()
    assert queue.get(timeout=0) == 1
    assert copy.copy(latest) is latest


@pytest.mark.parametrize("kind", KINDS)
def test_weak_references(kind):
    made = getattr(sharedmem, kind)()
    reference = weakref.ref(made)
    assert reference() is made
    del made
    gc.collect()
    assert reference() is None
