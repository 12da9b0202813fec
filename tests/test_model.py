"""A state machine: shared arrays beside plain ones, through all that may happen to them."""

import pickle
from multiprocessing.reduction import ForkingPickler
from typing import NamedTuple

import numpy as np
import pytest
import workers
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from support import Remote, settle

import sharedmem
from sharedmem import StaleHandleError

SIZES = st.one_of(st.integers(1, 50), st.sampled_from([513, 4096, 70_000, 300_000]))


class Pair:
    """A shared array (or view), its twin in plain memory, and which allocation both are of."""

    def __init__(self, shared, plain, root):
        self.shared, self.plain, self.root = shared, plain, root


class Message:
    """Bytes that multiprocessing would send, and whether they have been read."""

    def __init__(self, data, plain, root):
        self.data, self.plain, self.root = data, plain, root
        self.read = False


class Handle(NamedTuple):
    """Bytes of `pickle.dumps`, which keep nothing alive and can be loaded again and again."""

    data: bytes
    plain: np.ndarray
    root: int


class Arrays(RuleBasedStateMachine):
    """Shared and plain arrays get the same operations; handles of freed arrays must be stale."""

    pairs = Bundle("pairs")
    handles = Bundle("handles")
    messages = Bundle("messages")

    def __init__(self):
        super().__init__()
        self.before = sharedmem.stats()["live_blocks"]
        self.references = {}
        self.value = 0

    def take(self, root):
        self.references[root] = self.references.get(root, 0) + 1

    def give(self, root):
        self.references[root] -= 1

    @rule(target=pairs, size=SIZES, order=st.sampled_from("CF"))
    def allocate(self, size, order):
        self.value += 1
        shape = (size,) if size > 50 else (size, 3)
        pair = Pair(
            sharedmem.full(shape, self.value, "i8", order),
            np.full(shape, self.value, "i8", order),
            self.value,
        )
        self.take(pair.root)
        return pair

    @rule(target=pairs, pair=pairs, step=st.sampled_from([1, 2, -1, -3]), transpose=st.booleans())
    def view(self, pair, step, transpose):
        if pair.shared is None or pair.plain[::step].size == 0:
            return multiple()
        shared, plain = pair.shared[::step], pair.plain[::step]
        if transpose:
            shared, plain = shared.T, plain.T
        self.take(pair.root)
        return Pair(shared, plain, pair.root)

    @rule(pair=pairs, value=st.integers(-100, 100))
    def write(self, pair, value):
        if pair.shared is not None:
            pair.shared[..., :1] += value
            pair.plain[..., :1] += value

    @rule(pair=pairs)
    def drop(self, pair):
        if pair.shared is not None:
            pair.shared = pair.plain = None
            self.give(pair.root)

    @rule(target=handles, pair=pairs, protocol=st.integers(2, 5))
    def dump(self, pair, protocol):
        if pair.shared is None:
            return multiple()
        return Handle(pickle.dumps(pair.shared, protocol), pair.plain, pair.root)

    @rule(target=pairs, handle=handles)
    def load(self, handle):
        try:
            shared = pickle.loads(handle.data)
        except StaleHandleError:
            assert self.references[handle.root] == 0
            return multiple()
        assert self.references[handle.root] > 0
        self.take(handle.root)
        return Pair(shared, handle.plain, handle.root)

    @rule(target=messages, pair=pairs)
    def send(self, pair):
        if pair.shared is None:
            return multiple()
        self.take(pair.root)
        return Message(bytes(ForkingPickler.dumps(pair.shared)), pair.plain, pair.root)

    @rule(target=pairs, message=consumes(messages))
    def receive(self, message):
        message.read = True
        return Pair(pickle.loads(message.data), message.plain, message.root)

    @rule()
    def fill_memory_with_something_else(self):
        others = [sharedmem.full(size, -7, "i8") for size in (3, 40, 150, 513, 4096, 70_000)]
        del others

    @rule()
    def clean_up(self):
        sharedmem.cleanup()
        sharedmem.collect()

    @rule(pair=pairs)
    def copy(self, pair):
        if pair.shared is not None:
            assert not np.shares_memory(sharedmem.copy(pair.shared), pair.shared)
            assert (pair.shared + 1 == pair.plain + 1).all()

    @invariant()
    def as_many_blocks_live_as_this_process_can_reach(self):
        pairs = [value for value in self.names_to_values.values() if isinstance(value, Pair)]
        roots = {pair.root for pair in pairs if pair.shared is not None}
        assert sharedmem.stats()["live_blocks"] == self.before + len(roots)

    def teardown(self):
        values = list(self.names_to_values.values())
        for value in values:
            if isinstance(value, Pair) and value.shared is not None:
                assert (value.shared == value.plain).all()
                assert value.shared.shape == value.plain.shape
                value.shared = None
                self.give(value.root)
        for value in values:  # only the messages hold arrays now, and no other loads
            if isinstance(value, Handle):
                self.check_handle(value)
        for value in values:
            if isinstance(value, Message) and not value.read:
                assert (pickle.loads(value.data) == value.plain).all()
                self.give(value.root)
        assert not any(self.references.values())
        for value in values:
            if isinstance(value, Handle):
                self.check_handle(value)
        if sharedmem.stats()["live_blocks"] != self.before:
            settle()
        assert sharedmem.stats()["live_blocks"] == self.before

    def check_handle(self, handle):
        """It loads for as long as there are references, and not any longer."""
        if self.references[handle.root] > 0:
            assert (pickle.loads(handle.data) == handle.plain).all()
        else:
            with pytest.raises(StaleHandleError):
                pickle.loads(handle.data)


class ArraysAndChild(Arrays):
    """The same with a child process that holds, writes and drops arrays, too."""

    child = None

    def __init__(self):
        super().__init__()
        self.held = {}
        self.keys = 0

    @rule(pair=Arrays.pairs)
    def child_holds(self, pair):
        if pair.shared is not None:
            self.keys += 1
            key = self.keys
            self.child.call(workers.hold, key, pair.shared)
            self.held[key] = Pair(None, pair.plain, pair.root)
            self.take(pair.root)

    @rule(value=st.integers(-100, 100), which=st.integers(0, 5))
    def child_writes(self, value, which):
        if self.held:
            key = sorted(self.held)[which % len(self.held)]
            self.child.call(workers.store_held, key, ..., value)
            self.held[key].plain[...] = value

    @rule(target=Arrays.pairs, which=st.integers(0, 5))
    def child_returns(self, which):
        if not self.held:
            return multiple()
        pair = self.held[sorted(self.held)[which % len(self.held)]]
        shared = self.child.call(workers.held, sorted(self.held)[which % len(self.held)])
        self.take(pair.root)
        return Pair(shared, pair.plain, pair.root)

    @rule(which=st.integers(0, 5))
    def child_drops(self, which):
        if self.held:
            key = sorted(self.held)[which % len(self.held)]
            self.child.call(workers.drop, key)
            self.give(self.held.pop(key).root)

    def teardown(self):
        self.child.call(workers.drop_all)
        for pair in self.held.values():
            self.give(pair.root)
        super().teardown()


def run(machine, examples, steps):
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=examples, stateful_step_count=steps),
    )


def test_one_process():
    run(Arrays, 50, 40)


def test_two_processes():
    with Remote("spawn") as ArraysAndChild.child:
        try:
            run(ArraysAndChild, 25, 30)
        finally:
            ArraysAndChild.child.call(workers.drop_all)
    ArraysAndChild.child = None
