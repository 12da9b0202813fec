"""Scenarios with one Ray, in a process of their own: `python ray_scenarios.py FOLDER NAME...`.

Starts Ray, which keeps its files in the folder, and runs the functions of these names. Prints one line of
JSON: for each function the error, or None.
"""

import functools
import gc
import json
import os
import signal
import sys
import traceback

import numpy as np
import ray
from ray_actors import LARGE, Owner, User, check, live_bytes, objects, start, until

import sharedmem
import sharedmem.ray


@functools.cache
def _pair():
    return start(Owner), start(User)


def pair():
    """An owner whose state is zero, and a user; the same processes each time, to save time."""
    owner, user = _pair()
    ray.get(owner.clear.remote())
    return owner, user


# -- scenarios


def two_actors_write_the_same_memory():
    owner, user = pair()
    ref = owner.share.remote()
    assert ray.get(user.add.remote(ref)) == ("SharedArray", True, LARGE)
    assert ray.get(owner.sum.remote()) == LARGE
    mine = ray.get(ref)
    mine += 1
    assert ray.get(owner.sum.remote()) == 2 * LARGE
    assert ray.get(user.add.remote(ref))[2] == 3 * LARGE
    assert mine[0] == 3


def memory_goes_with_the_references():
    owner, user = pair()
    # A process that sends arrays keeps a small one of its own.
    assert ray.get(owner.share.remote()).sum() == 0
    before, here = ray.get(owner.live.remote()), live_bytes()
    for _ in range(3):
        refs = [owner.make.remote() for _ in range(4)]
        assert [ray.get(user.add.remote(ref))[2] for ref in refs] == [2 * LARGE] * 4
        assert [float(a.sum()) for a in ray.get(refs)] == [2 * LARGE] * 4
    assert ray.get(owner.live.remote()) == before + 4 * 8 * LARGE
    del refs
    until(lambda: ray.get(owner.live.remote()) == before, "the owner keeps an object without references")
    until(lambda: live_bytes() == here, "the driver keeps what it has dropped")


def what_the_driver_puts():
    _, user = pair()
    assert ray.get(sharedmem.ray.put(sharedmem.zeros(1))) == 0
    before = live_bytes()
    a = sharedmem.zeros(LARGE)
    ref = sharedmem.ray.put(a)
    assert ray.get(user.add.remote(ref)) == ("SharedArray", True, LARGE)
    assert a.sum() == LARGE
    assert ray.get(ref)[0] == 1
    both = sharedmem.ray.put({"in": [a, 7]})
    ray.get(both)["in"][0][:] = 5
    assert a[-1] == 5
    del a
    assert ray.get(ref)[-1] == 5
    del ref, both
    until(lambda: live_bytes() == before, "the driver keeps an object without references")


def ordinary_arrays_are_copied_and_other_objects_stored_by_value():
    _, user = pair()
    plain = np.zeros(LARGE)
    ref = sharedmem.ray.put(plain)
    assert [ray.get(user.add.remote(ref))[2] for _ in range(2)] == [LARGE, 2 * LARGE]
    assert plain.sum() == 0
    for value in (7, None, "text", {"a": np.arange(5)}, np.array([None, 1], object), sharedmem.ones(0)):
        assert repr(ray.get(sharedmem.ray.put(value))) in (repr(value), repr(np.ones(0)))
    for wrong in (ref, (each for each in ())):
        try:
            sharedmem.ray.put(wrong)
        except TypeError:
            continue
        raise AssertionError(wrong)


def inside_objects_and_lists():
    owner, user = pair()
    a = sharedmem.zeros(10)
    refs = [sharedmem.ray.put(a), owner.share.remote()]
    ray.wait(refs, num_returns=2)
    until(lambda: ray.get(refs[1]) is not None, "the owner's metadata")
    assert ray.get(user.get_and_add.remote(refs)) == [
        ("SharedArray", True, 10.0),
        ("SharedArray", True, float(LARGE)),
    ]

    @ray.remote(num_cpus=0)
    def in_a_task(refs):
        return [User().add(each) for each in ray.get(refs)]

    assert [each[2] for each in ray.get(in_a_task.remote(refs))] == [20, 2 * LARGE]
    assert (a.sum(), ray.get(owner.sum.remote())) == (20, 2 * LARGE)


def arrays_of_all_kinds():
    owner, user = pair()
    ref = owner.objects.remote()
    assert ray.get(user.check.remote(ref)) == []
    assert check(ray.get(ref)) == []
    assert ray.get(user.check.remote(sharedmem.ray.put(objects()))) == []
    assert ray.get(owner.number.remote()) == 7


def values_go_through_the_store_as_ever():
    owner, user = pair()
    assert ray.get(owner.make.remote()).sum() == LARGE  # from here on Ray has its own entry for shared arrays
    ref = sharedmem.ray.put(sharedmem.ones(3))
    for made in (
        ray.get(owner.values.remote()),
        ray.get(ray.put(Owner(1).values())),
        ray.get(ray.remote(num_cpus=0)(lambda: Owner(1).values()).remote()),
        ray.get(ray.remote(num_cpus=0)(lambda given: given).remote(Owner(1).values())),
    ):
        for a in (made["bare"], made["in"][0]):
            assert type(a) is np.ndarray
            assert not sharedmem.is_shared(a)
            assert not a.flags.writeable
            assert a.sum() == 3 * LARGE
    assert type(ray.get(owner.make.remote(), _use_object_store=True)) is np.ndarray
    assert ray.get(user.keep.remote(ray.get(ref))) == 3
    size = len(ray.cloudpickle.dumps(sharedmem.ones(LARGE), protocol=5, buffer_callback=lambda buffer: False))
    assert size < 1000, "the bytes are in the pickle, where Ray copies them once more"


def refused_memory_means_values():
    first, second, (owner, _) = start(User), start(User), pair()
    ray.get([first.refuse.remote(), second.refuse.remote()])
    a = sharedmem.zeros(LARGE)
    for user, other in ((first, second), (second, first)):
        wrong = ray.get(user.check.remote(owner.objects.remote()))
        assert wrong == [], wrong
        assert ray.get(user.add.remote(owner.share.remote()))[2] == LARGE
        assert ray.get(user.add.remote(sharedmem.ray.put(a)))[2] == LARGE
        assert ray.get(user.get_and_add.remote([sharedmem.ray.put(a)]))[0][2] == LARGE
        assert ray.get(user.add.remote(other.make.remote()))[2] == 2 * LARGE
    assert (a.sum(), ray.get(owner.sum.remote())) == (0, 0)
    # Each needs the other's values at the same moment.
    found = [
        each
        for _ in range(10)
        for each in (first.add.remote(second.make.remote()), second.add.remote(first.make.remote()))
    ]
    assert {each[2] for each in ray.get(found)} == {2 * LARGE}


def actors_put():
    owner, user = pair()
    (ref,), said = ray.get(owner.put.remote(True))
    assert said == []
    assert ray.get(user.get_and_add.remote([ref]))[0][2] == LARGE
    assert ray.get(owner.sum.remote()) == LARGE

    class Plain(Owner):
        share = make = objects = number = None

    plain = start(Plain)
    for _ in range(2):
        (ref,), said = ray.get(plain.put.remote(True))
        assert ray.get(ref).sum() == 0
        assert type(ray.get(ref)) is np.ndarray
    assert said == [], "one warning"
    ((ref,), said) = ray.get(start(Plain).put.remote(True))
    assert "enable_tensor_transport=True" in said[0]


def readers_keep_what_a_killed_owner_made():
    before = sharedmem.stats()["shared_bytes"]
    owner, user = start(Owner), start(User)
    refs = [owner.make.remote(), owner.make.remote()]
    assert ray.get(user.keep.remote(refs[0])) == LARGE
    mine = ray.get(refs[0])
    os.kill(ray.get(owner.pid.remote()), signal.SIGKILL)
    with_state = []
    for ref in refs:
        try:
            with_state.append(float(ray.get(ref).sum()))
        except ray.exceptions.RayError as error:
            with_state.append(type(error).__name__)
    for ref in refs:
        try:
            with_state.append(ray.get(user.add.remote(ref, 0))[2])
        except ray.exceptions.RayError as error:
            with_state.append(type(error).__name__)
    assert {each for each in with_state if not isinstance(each, str)} <= {float(LARGE)}, with_state
    mine += 1
    assert ray.get(user.look_at_kept.remote()) == ("SharedArray", 2 * LARGE)
    ray.kill(user)
    del mine, refs, ref, owner, user

    def is_back():
        gc.collect()
        sharedmem.collect()
        return sharedmem.stats()["shared_bytes"] <= before

    until(is_back, "memory of dead actors is kept")


def an_actor_that_ray_restarts():
    owner, (_, user) = start(Owner, max_restarts=1, max_task_retries=1), pair()
    assert ray.get(user.add.remote(owner.make.remote()))[2] == 2 * LARGE
    os.kill(ray.get(owner.pid.remote()), signal.SIGKILL)
    assert ray.get(user.add.remote(owner.make.remote()))[2] == 2 * LARGE
    assert ray.get(owner.make.remote()).sum() == LARGE


def tasks_put():
    _, user = pair()

    @ray.remote(num_cpus=0)
    def put():
        a = sharedmem.zeros(10)
        ref = sharedmem.ray.put(a)
        return ray.get(user.get_and_add.remote([ref])), a.tolist(), ray.get(user.add.remote(ref))[2]

    assert ray.get(put.remote()) == ([("SharedArray", True, 10.0)], [1.0] * 10, 20.0)


def an_end_with_references():
    """The last one: ends Ray."""
    _pair.cache_clear()
    before = live_bytes()
    a = sharedmem.ones(LARGE)
    ref = sharedmem.ray.put(a)
    del a
    assert live_bytes() > before
    ray.shutdown()
    until(lambda: live_bytes() <= before, "the driver keeps memory after Ray was shut down")
    del ref


def main(folder, *names):
    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        object_store_memory=100 << 20,
        _temp_dir=folder,
    )
    said = {}
    for name in names:
        try:
            globals()[name]()
            said[name] = None
        except BaseException:
            said[name] = traceback.format_exc()
        gc.collect()
    ray.shutdown()
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
