"""Additions to elements that other processes add to as well.

* ``one addition``: a counter plus one by ``sharedmem.atomics.add``; the floor
  is ``multiprocessing.Value``, plus one under its lock. No other process is there.
* ``million additions, N``: a million indices in random order, and as many
  values, added to a table of N float64 by ``atomics.add_at``; the other floor
  is ``np.add.at``, which loses additions when others add, too.

Timed: the statement alone, by `timeit`; the median.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..contenders.base import Contender
from ..measuring import time_statement
from ..model import Amount, Case, Goal, Sample, Setting

VALUE = "multiprocessing.Value under its lock"
ADD_AT = "np.add.at"
SMALL, LARGE = 1000, 1_000_000


def _tables(add_at: Callable[..., None], create: Callable[[int], Any], setting: Setting) -> Iterator[Sample]:
    random = np.random.default_rng(1)
    for size in (SMALL, LARGE):
        names = {
            "add_at": add_at,
            "table": create(size),
            "indices": random.integers(0, size, setting["additions"]),
            "values": np.ones(setting["additions"]),
        }
        names["table"].fill(0)
        seconds = time_statement("add_at(table, indices, values)", names, setting.seconds)
        yield Sample(f"million additions, {size:,}", seconds * 1e6 / setting["additions"])


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    from sharedmem import atomics

    create = contender.creator("zeros")
    counter = create(1).view(np.int64)
    yield Sample(
        "one addition",
        time_statement("add(counter, 0, 1)", {"add": atomics.add, "counter": counter}, setting.seconds),
    )
    yield from _tables(atomics.add_at, create, setting)


def value(setting: Setting) -> Iterator[Sample]:
    names = {"value": multiprocessing.Value("q")}
    yield Sample("one addition", time_statement("with value: value.value += 1", names, setting.seconds))


def add_at(setting: Setting) -> Iterator[Sample]:
    yield from _tables(np.add.at, np.zeros, setting)


CASE = Case(
    name="atomics",
    title="atomic additions: one, and {additions} by indices",
    measure=measure,
    contenders=("sharedmem",),
    floor=VALUE,
    floors={VALUE: value, ADD_AT: add_at},
    doc=__doc__,
    amounts={"additions": Amount(1_000_000, 100_000, "additions")},
    goals=(
        Goal("one addition", VALUE, at_most=0.2),
        Goal(f"million additions, {SMALL:,}", ADD_AT, at_most=3),
        Goal(f"million additions, {LARGE:,}", ADD_AT, at_most=3),
    ),
)
