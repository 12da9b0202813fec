"""`pickle.dumps` and `pickle.loads` of an array, in one process.

Timed: each of the two calls alone, by `timeit`, on an array that lives
throughout; what ``loads`` returns is dropped at once. The length of the
pickle is a point of its own. Protocol 4.

The floor is an object that pickles as a global function called with 90
bytes: its reduction is ready-made and costs one dictionary look-up, and the
function returns its argument. No array is made.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

from ..contenders.base import Contender
from ..measuring import time_statement
from ..model import Amount, Case, Goal, Sample, Setting

PROTOCOL = 4
CALL = "a global function called with 90 bytes"


def received(handle: bytes) -> bytes:
    return handle


class Named:
    """Pickles as a call of `received`."""

    __reduce_ex__ = {PROTOCOL: (received, (bytes(range(90)),))}.__getitem__


def _times(value: Any, setting: Setting) -> Iterator[Sample]:
    pickled = pickle.dumps(value, PROTOCOL)
    names = {
        "dumps": pickle.dumps,
        "loads": pickle.loads,
        "value": value,
        "pickled": pickled,
    }
    dump = time_statement(f"dumps(value, {PROTOCOL})", names, setting.seconds)
    load = time_statement("loads(pickled)", names, setting.seconds)
    yield Sample("dumps", dump)
    yield Sample("loads", load)
    yield Sample("dumps + loads", dump + load)
    yield Sample("length of the pickle", len(pickled), "bytes")


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    item = contender.creator("ones")(setting["size"] // 8)
    yield from _times(item, setting)
    contender.drop(item)


def call(setting: Setting) -> Iterator[Sample]:
    yield from _times(Named(), setting)


CASE = Case(
    name="pickle_roundtrip",
    title="dumps and loads of an array of {size}, in one process",
    measure=measure,
    contenders=("sharedmem", "shared-ndarray2", "pickle"),
    floor=CALL,
    floors={CALL: call},
    doc=__doc__,
    amounts={"size": Amount(6 << 20, 6 << 20)},
    goals=(
        Goal("dumps + loads", CALL, at_most=1.3),
        Goal("length of the pickle", at_most=150),
    ),
)
