"""An array over the same memory that the kernel protects, and one that it does not.

Timed, by `timeit` on an array that lives throughout: ``readonly(a)``, which
has the segment attached a second time by then; dumps and loads of it; and the
same of ``a.view()``. What is made is dropped at once. Only this library has
such arrays, and the floor is its own view.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

from ..contenders.base import Contender
from ..measuring import time_statement
from ..model import Case, Goal, Sample, Setting

VIEW = "a.view()"


def _times(statement: str, names: dict[str, Any], setting: Setting) -> Iterator[Sample]:
    made = eval(statement, dict(names))
    names = {**names, "made": made, "dumps": pickle.dumps, "loads": pickle.loads}
    yield Sample("make and drop", time_statement(statement, names, setting.seconds))
    yield Sample("dumps + loads", time_statement("loads(dumps(made, 4))", names, setting.seconds))


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    from sharedmem import readonly

    item = contender.creator("ones")(1000)
    yield from _times("readonly(a)", {"a": item, "readonly": readonly}, setting)
    contender.drop(item)


def view(setting: Setting) -> Iterator[Sample]:
    import sharedmem

    yield from _times("a.view()", {"a": sharedmem.ones(1000)}, setting)


CASE = Case(
    name="read_only",
    title="an array over the same memory that cannot be written to",
    measure=measure,
    contenders=("sharedmem",),
    floor=VIEW,
    floors={VIEW: view},
    doc=__doc__,
    goals=(
        Goal("make and drop", VIEW, at_most=2),
        Goal("dumps + loads", VIEW, at_most=1.5),
    ),
)
