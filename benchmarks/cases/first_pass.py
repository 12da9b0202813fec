"""The first pass of another process over a large array: a byte of each page.

Timed, by the other process: reading one byte of each page once it has
received the array, for the first time and for the second. For libraries that
close what they received after each use, the second time opens it again. The
point "handed over and read" is the whole first call, timed by the sender.
Not timed: making the array, every page of which its maker has written.

The floor is a thread of the maker's process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np

from ..contenders.base import Contender
from ..groups import SENDERS
from ..measuring import read_pages, touch_and_free
from ..model import PEERS, Amount, Case, Goal, Sample, Setting

THREADS = "threads of one process"


def timed_pass(array: np.ndarray) -> float:
    start = time.perf_counter()
    read_pages(array)
    return time.perf_counter() - start


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    create, elements = contender.creator("ones"), setting["size"] // 8
    touch_and_free(setting["size"] * 5 // 2)
    if contender.inherited:
        item = create(elements)
        consumer = contender.consumer(timed_pass, item)
    else:
        consumer = contender.consumer(timed_pass)
        item = create(elements)
    with consumer:
        start = time.perf_counter()
        first = consumer.call(item)
        whole = time.perf_counter() - start
        second = consumer.call(item)
    contender.drop(item)
    yield Sample("first pass", first)
    yield Sample("second pass", second)
    yield Sample("handed over and read", whole)


def threads(setting: Setting) -> Iterator[Sample]:
    touch_and_free(setting["size"] * 5 // 2)
    array = np.ones(setting["size"] // 8)
    times: list[float] = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: times.append(timed_pass(array)))
        thread.start()
        thread.join()
    yield Sample("first pass", times[0])
    yield Sample("second pass", times[1])


CASE = Case(
    name="first_pass",
    title="first pass of another process over {size}, a byte of each page",
    measure=measure,
    contenders=("sharedmem", "rawarray", *SENDERS[1:]),
    floor=THREADS,
    floors={THREADS: threads},
    doc=__doc__,
    amounts={"size": Amount(1 << 30, 32 << 20)},
    goals=(
        Goal("first pass", THREADS, at_most=1.3),
        Goal("first pass", PEERS, better_by=6),
    ),
)
