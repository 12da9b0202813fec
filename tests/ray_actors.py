"""Actors for tests of Ray, and what they exchange. Processes of Ray import this module by its name."""

import gc
import os
import time
import warnings

import numpy as np
import ray

import sharedmem
import sharedmem.ray

LARGE = 1 << 17  # elements of 8 bytes

#: Seconds that processes have to give back what they had.
SOON = 60

sharedmem.ray.register()


class Owner:
    """An actor with state that others may write."""

    def __init__(self, n=LARGE):
        sharedmem.ray.register()
        self.state = sharedmem.zeros(n)

    @ray.method(tensor_transport="sharedmem")
    def share(self):
        return self.state

    @ray.method(tensor_transport="sharedmem")
    def make(self, n=LARGE):
        return sharedmem.ones(n)

    @ray.method(tensor_transport="sharedmem")
    def objects(self):
        return objects()

    @ray.method(tensor_transport="sharedmem")
    def number(self):
        return 7

    def put(self, through_list):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            ref = sharedmem.ray.put(self.state)
        return ([ref] if through_list else ref), [str(each.message) for each in said]

    def values(self):
        return {"bare": sharedmem.full(LARGE, 3.0), "in": [sharedmem.full(LARGE, 3.0)]}

    def clear(self):
        self.state[:] = 0

    def sum(self):
        return float(self.state.sum())

    def live(self):
        gc.collect()
        return sharedmem.stats()["live_bytes"]

    def pid(self):
        return os.getpid()


class User:
    """An actor that gets arrays."""

    def add(self, a, value=1):
        a += value
        return type(a).__name__, sharedmem.is_shared(a), float(a.sum())

    def get_and_add(self, refs):
        return [self.add(a) for a in ray.get(refs)]

    def check(self, given, shared=True):
        return check(given, shared)

    def keep(self, a):
        self.kept = a
        return float(a.sum())

    def look_at_kept(self):
        return type(self.kept).__name__, float(self.kept.sum())

    def refuse(self):
        """From now on the system refuses other processes' memory to this actor, as far as we see."""
        from sharedmem._engines import ray_transport

        def load_probe(probe):
            raise OSError(24, "this process has attached as many arenas as it can")

        ray_transport.load_probe = load_probe

    @ray.method(tensor_transport="sharedmem")
    def make(self):
        return sharedmem.ones(LARGE)


def objects():
    """Arrays of all kinds, those in shared memory under names that begin with s."""
    given = np.arange(24.0).reshape(2, 3, 4)
    shared = sharedmem.array(given)
    frozen = sharedmem.array(given)
    frozen.flags.writeable = False
    record = np.array([(1, 2.5), (3, 4.5)], [("a", "i4"), ("b", "f8")])
    return {
        "s C": (shared, given),
        "s F": (sharedmem.array(np.asfortranarray(given)), given),
        "s view": (shared[::-1, :, 1::2], given[::-1, :, 1::2]),
        "s scalar": (sharedmem.array(5.0), np.array(5.0)),
        "s record": (sharedmem.array(record), record),
        "s text": (sharedmem.array(["a", "bc"]), np.array(["a", "bc"])),
        "s big-endian": (sharedmem.array(given.astype(">f4")), given.astype(">f4")),
        "s frozen": (frozen, given),
        "empty": (sharedmem.ones((0, 3)), np.ones((0, 3))),
        "plain": (given, given),
        "text": ("text", np.array("text")),
    }


def check(given, shared=True):
    """What is wrong with what `objects` made, where it arrived; a list of text."""
    wrong = []
    for name, (a, expected) in given.items():
        if not (np.shape(a) == expected.shape and np.array_equal(a, expected)):
            wrong.append(f"{name}: {a!r}")
        if isinstance(a, np.ndarray):
            if a.size and sharedmem.is_shared(a) != (shared and name.startswith("s ")):
                wrong.append(f"{name}: shared is {sharedmem.is_shared(a)}")
            if a.dtype != expected.dtype:
                wrong.append(f"{name}: {a.dtype}")
            if shared and name.startswith("s ") and a.flags.writeable == (name == "s frozen"):
                wrong.append(f"{name}: writable is {a.flags.writeable}")
    if "s F" in given and not given["s F"][0].flags.f_contiguous:
        wrong.append("s F: order")
    return wrong


def until(true, what):
    """Wait until something holds; it has to before long."""
    end = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def live_bytes():
    gc.collect()
    return sharedmem.stats()["live_bytes"]


def start(cls, *args, **options):
    return ray.remote(cls).options(num_cpus=0, **options).remote(*args)
