"""Messages through queues, between processes that were forked before.

* ``N to N``: so many processes put tuples of three integers, as many take them,
  one at a time; messages per second, all together, from the moment when all
  are ready until the last one is taken.
* ``many at once``: one puts, one takes all that is there by ``get_many``.
* ``round trip``: seconds from a tiny message to its answer by another process
  that waits for it, by two queues, or by ``multiprocessing.Pipe``.
* ``round trip, 6 MiB``: the same of an array of 6 MiB that is shared.
* ``6 MiB to tiny``: the second of these over the first, by one pair of queues
  through which tiny messages and arrays go in turn.

The floors are ``multiprocessing.Queue``, ``faster-fifo`` if it is installed,
and ``multiprocessing.Pipe``.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..contenders.base import Contender
from ..model import Amount, Case, Goal, Sample, Setting

QUEUE, FIFO, PIPE = "multiprocessing.Queue", "faster-fifo", "multiprocessing.Pipe"
MIB_6 = 6 << 20
PATIENCE = 60.0  # seconds
MANY = 1000  # messages at once at most

fork = multiprocessing.get_context("fork")


def _put(queue: Any, count: int, ready: Any) -> None:
    ready.wait()
    for i in range(count):
        queue.put((i, 2, 3))


def _get(queue: Any, count: int, ready: Any) -> None:
    ready.wait()
    for _ in range(count):
        queue.get(True, PATIENCE)


def _get_many(queue: Any, count: int, ready: Any) -> None:
    ready.wait()
    while count > 0:
        count -= len(queue.get_many(MANY))


def _get_many_of_fifo(queue: Any, count: int, ready: Any) -> None:
    ready.wait()
    while count > 0:
        count -= len(queue.get_many(timeout=PATIENCE, max_messages_to_get=MANY))


def _rate(make: Callable[[], Any], pairs: int, messages: int, get: Callable[..., None]) -> float:
    """Messages per second from `pairs` senders to as many receivers."""
    queue = make()
    ready = fork.Barrier(2 * pairs + 1)
    each = messages // pairs
    processes = [
        fork.Process(target=work, args=(queue, each, ready)) for work in (_put, get) for _ in range(pairs)
    ]
    for process in processes:
        process.start()
    ready.wait()
    start = time.perf_counter()
    for process in processes[pairs:]:
        process.join()
    seconds = time.perf_counter() - start
    for process in processes:
        process.join()
    return each * pairs / seconds


def _echo(receive: Callable[[], Any], send: Callable[[Any], None]) -> None:
    while (message := receive()) is not None:
        send(message)


def _trip(
    send: Callable[[Any], None], receive: Callable[[], Any], other: tuple[Any, Any], message: Any, count: int
) -> float:
    """Median seconds of a message's way there and back."""
    process = fork.Process(target=_echo, args=other)
    process.start()
    times = []
    for _ in range(count):
        start = time.perf_counter()
        send(message)
        receive()
        times.append(time.perf_counter() - start)
    send(None)
    process.join()
    return statistics.median(times)


def _queues(make: Callable[[], Any], message: Any, count: int) -> float:
    there, back = make(), make()
    return _trip(there.put, back.get, (there.get, back.put), message, count)


def _ratio(make: Callable[[], Any], messages: tuple[Any, Any], count: int) -> float:
    """The median time of the second message's way there and back over the first's; they take turns."""
    there, back = make(), make()
    process = fork.Process(target=_echo, args=(there.get, back.put))
    process.start()
    times: tuple[list[float], list[float]] = [], []
    for _ in range(count):
        for message, found in zip(messages, times, strict=True):
            start = time.perf_counter()
            there.put(message)
            back.get()
            found.append(time.perf_counter() - start)
    there.put(None)
    process.join()
    first, second = map(statistics.median, times)
    return second / first


def _rates(make: Callable[[], Any], setting: Setting) -> Iterator[Sample]:
    for pairs in (1, 4):
        rate = _rate(make, pairs, setting["messages"], _get)
        yield Sample(f"{pairs} to {pairs}", rate, "1/s")


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    import sharedmem

    yield from _rates(sharedmem.Queue, setting)
    yield Sample("many at once", _rate(sharedmem.Queue, 1, setting["messages"], _get_many), "1/s")
    trips = setting["messages"] // 50
    yield Sample("round trip", _queues(sharedmem.Queue, (1, 2, 3), trips))
    array = contender.creator("zeros")(MIB_6 // 8)
    yield Sample("round trip, 6 MiB", _queues(sharedmem.Queue, array, trips))
    yield Sample("6 MiB to tiny", _ratio(sharedmem.Queue, ((1, 2, 3), array), trips), "ratio")


def queue(setting: Setting) -> Iterator[Sample]:
    yield from _rates(fork.Queue, setting)
    yield Sample("round trip", _queues(fork.Queue, (1, 2, 3), setting["messages"] // 50))


def fifo(setting: Setting) -> Iterator[Sample]:
    from faster_fifo import Queue

    def make() -> Any:
        return Queue(max_size_bytes=64 << 20)

    yield from _rates(make, setting)
    yield Sample("many at once", _rate(make, 1, setting["messages"], _get_many_of_fifo), "1/s")
    yield Sample("round trip", _queues(make, (1, 2, 3), setting["messages"] // 50))


def pipe(setting: Setting) -> Iterator[Sample]:
    ours, theirs = fork.Pipe()
    trips = setting["messages"] // 50
    for name, message in (("round trip", (1, 2, 3)), ("round trip, 6 MiB", np.zeros(MIB_6 // 8))):
        count = trips if name == "round trip" else max(10, trips // 20)
        yield Sample(name, _trip(ours.send, ours.recv, (theirs.recv, theirs.send), message, count))


CASE = Case(
    name="queues",
    title="queues: {messages} tuples of three integers",
    measure=measure,
    contenders=("sharedmem",),
    floor=QUEUE,
    floors={QUEUE: queue, FIFO: fifo, PIPE: pipe},
    doc=__doc__,
    amounts={"messages": Amount(200_000, 20_000, "messages")},
    goals=(
        Goal("1 to 1", QUEUE, at_least=5),
        Goal("4 to 4", QUEUE, at_least=5),
        Goal("1 to 1", FIFO, at_least=1),
        Goal("4 to 4", FIFO, at_least=1),
        Goal("many at once", FIFO, at_least=2),
        Goal("round trip", PIPE, at_most=0.6),
        Goal("6 MiB to tiny", at_most=1.1),
    ),
)
