"""An object that lies in shared memory already, handed to another process, which loads it and answers.

Timed: one round trip by a Pipe: the message made by `dumps`, sent, received and loaded, an answer sent back,
the object let go by the receiver. The median of many, after a warm-up. `sharedmem.share` was called once,
before; it is timed by the case `share`. Pickle is what the Pipe does by itself with the object in private
memory.
"""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Iterator
from typing import Any

from ..contenders.base import Contender
from ..measuring import time_each
from ..model import OWN, Amount, Case, Goal, Sample, Setting
from ..objects import all_of
from ..transport import PipeConsumer


class Loaded:
    """Stands for a contender of arrays: sends messages of `dumps`, and loads them at the other end."""

    inherited = False

    def __init__(self, contender: Contender) -> None:
        self.pack = contender.dumps
        self.loads = contender.loads

    def unpack(self, message: Any) -> Any:
        return self.loads(message)[0]

    def array(self, item: Any) -> Any:
        return item

    def let_go(self, item: Any) -> None:
        pass


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    own = contender.name == OWN
    calls = setting.repeats(200 if own else 7, 3)
    sender: Any = Loaded(contender) if own else contender
    with PipeConsumer(sender, type, None) as consumer:
        for name, obj in all_of(setting["size"]):
            if own:
                obj = importlib.import_module("sharedmem").share(obj)
            times = time_each(lambda obj=obj: consumer.call(obj), calls + 1)
            yield Sample(name, statistics.median(times[1:]))


CASE = Case(
    name="objects_shared",
    title="objects of {size} that are shared already, handed to another process by Pipe",
    measure=measure,
    contenders=("sharedmem", "pickle"),
    floor="pickle",
    doc=__doc__,
    amounts={"size": Amount(100_000_000, 8_000_000)},
    goals=(
        Goal("DataFrame", "pickle", better_by=500),
        Goal("csr matrix", "pickle", better_by=500),
        Goal("dict of arrays", "pickle", better_by=500),
    ),
)
