"""Arrays between two actors of Ray, and from the driver to one: by Ray's store, and by `sharedmem.ray`.

One program starts Ray with its two actors, and the ways take turns, call by call, so that both meet the same
moments of the machine. A point has the fastest of these calls. Timed is a call from asking for it to having
its result: the round trips to both actors are in it. The reader looks at one number of each page, which maps
the whole array. Not timed: starting Ray, and filling the arrays.

"actor to actor": an actor returns an array that it has, another one gets it. "put": the driver stores an
array that it has, and an actor gets it. "plasma" is Ray's store, which copies the array once and whose
readers cannot write; "sharedmem" gives them the array itself. "plain put": the driver stores a shared array
by ``ray.put``, which is by value; that may not take longer than with an ndarray.
"""

from __future__ import annotations

import importlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..contenders.base import Contender
from ..model import Amount, Case, Goal, Sample, Setting

PAGE = 512  # numbers of 8 bytes
STORE_BYTES = 4  # arrays that Ray's store has room for


class Holder:
    """An actor that has an array of each kind."""

    def __init__(self, elements: int) -> None:
        import sharedmem

        self.plain = np.ones(elements)
        self.shared = sharedmem.ones(elements)

    def give_plain(self) -> Any:
        return self.plain

    def give_shared(self) -> Any:
        return self.shared

    def look(self, a: Any) -> float:
        return float(a[::PAGE].sum())


def fastest(ways: dict[str, Callable[[], Any]], rounds: int, expected: float) -> dict[str, float]:
    """Seconds of the fastest call of each way, which take turns; the first round is not counted."""
    best = dict.fromkeys(ways, float("inf"))
    for number in range(rounds + 1):
        for name, call in ways.items():
            start = time.perf_counter()
            found = call()
            taken = time.perf_counter() - start
            if found != expected:
                raise RuntimeError("the array did not arrive as it was sent")
            if number > 0:
                best[name] = min(best[name], taken)
    return best


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    sharedmem = contender.module  # type: ignore[attr-defined]
    ray: Any = importlib.import_module("ray")
    sharedmem.ray.register()
    elements = setting["size"] // 8
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        ray.init(
            "local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=max(STORE_BYTES * setting["size"], 80 << 20),
            _temp_dir=folder,
        )
        try:
            actor = ray.remote(num_cpus=0, enable_tensor_transport=True)(Holder)
            yield from points(sharedmem, ray, actor.remote(elements), actor.remote(1), elements, setting)
        finally:
            ray.shutdown()


def points(
    sharedmem: Any, ray: Any, maker: Any, reader: Any, elements: int, setting: Setting
) -> Iterator[Sample]:
    plain, shared = np.ones(elements), sharedmem.ones(elements)
    give = maker.give_shared.options(tensor_transport="sharedmem")

    def look(ref: Any) -> float:
        seen: float = ray.get(reader.look.remote(ref))
        return seen

    cases: dict[str, dict[str, Callable[[], Any]]] = {
        "actor to actor": {
            "plasma": lambda: look(maker.give_plain.remote()),
            "sharedmem": lambda: look(give.remote()),
        },
        "put": {
            "plasma": lambda: look(ray.put(plain)),
            "sharedmem": lambda: look(sharedmem.ray.put(shared)),
        },
        "plain put": {
            "ndarray": lambda: look(ray.put(plain)),
            "shared array": lambda: look(ray.put(shared)),
        },
    }
    for what, ways in cases.items():
        best = fastest(ways, setting["calls"], float(len(plain[::PAGE])))
        for way, seconds in best.items():
            yield Sample(f"{what}, {way}", seconds)
        first, second = best
        yield Sample(f"{what}, {second}, times {first}", best[first] / best[second], "times")


CASE = Case(
    name="ray_actors",
    title="an array of {size} between actors of Ray",
    measure=measure,
    contenders=("sharedmem",),
    floor="sharedmem",
    doc=__doc__,
    amounts={"size": Amount(256 << 20, 1 << 20), "calls": Amount(9, 2, "calls")},
    goals=(
        Goal("actor to actor, sharedmem, times plasma", at_least=3),
        Goal("put, sharedmem, times plasma", at_least=3),
        Goal("plain put, shared array, times ndarray", at_least=0.95),
    ),
    timeout=1200.0,
    needs=("ray",),
)
