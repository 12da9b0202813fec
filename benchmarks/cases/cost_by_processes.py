"""The cost of an operation against the number of processes that take part.

So many processes, forked from the measuring one, each hold an array of their
own making and sleep. Timed, by the measuring process: making an array of 100
float64 and dropping it, and pickling a shared array and loading it again
(plain NumPy pickles the bytes). Not timed: starting the processes.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ..contenders.base import Contender
from ..measuring import time_statement
from ..model import Amount, Case, Goal, Plot, Sample, Setting
from ..transport import FORK

COUNTS = (1, 2, 5, 10, 20, 50, 100, 200)
CYCLE, PICKLE = "create and drop", "dumps + loads"


def _take_part(contender: Contender, connection: Any, unused: Any) -> None:
    unused.close()
    item = contender.creator("ones")(100)
    connection.send(True)
    connection.recv()
    contender.drop(item)


@contextmanager
def participant(contender: Contender) -> Iterator[None]:
    """A process that holds one array until the block ends."""
    here, there = FORK.Pipe()
    process = FORK.Process(target=_take_part, args=(contender, there, here), daemon=True)
    process.start()
    there.close()
    here.recv()
    try:
        yield
    finally:
        here.send(True)
        process.join()
        here.close()


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    statement, names = contender.cycle("empty", 100)
    shared = contender.creator("ones")(100)
    pickling = {"pickle": pickle, "value": shared}
    times: dict[str, list[float]] = {CYCLE: [], PICKLE: []}
    running = 1
    with ExitStack() as participants:
        for count in COUNTS:
            if count > setting["most"]:
                break
            for _ in range(count - running):
                participants.enter_context(participant(contender))
            running = count
            times[CYCLE].append(time_statement(statement, names, setting.seconds))
            times[PICKLE].append(
                time_statement("pickle.loads(pickle.dumps(value, 4))", pickling, setting.seconds)
            )
            for series, found in times.items():
                yield Sample(f"{series}, {count}", found[-1], x=count, series=series)
    for series, found in times.items():
        yield Sample(f"{series}: most processes / one", found[-1] / found[0], "ratio")


CASE = Case(
    name="cost_by_processes",
    title="cost of an operation among 1 to {most} processes",
    measure=measure,
    contenders=("numpy", "sharedmem"),
    floor="numpy",
    doc=__doc__,
    amounts={"most": Amount(200, 5, "processes")},
    goals=(
        Goal(f"{CYCLE}: most processes / one", at_most=1.2),
        Goal(f"{PICKLE}: most processes / one", at_most=1.2),
    ),
    plot=Plot("processes", "seconds an operation"),
)
