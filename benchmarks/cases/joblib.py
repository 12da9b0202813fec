"""Arrays and small tasks in `joblib.Parallel` with two workers, by joblib's default and by "sharedmem".

The ways take turns, call by call, so that all meet the same moments of the machine. A point has the fastest
of these calls. `benchmarks.joblib_pools` says what each way is, what is done with arrays of one size, and
what is timed.

"tasks": a call with many tasks that do nothing, each a message of its own. They cannot gain by shared memory:
the point says how much longer they take.

Points that end in "times loky" say how often a way's time fits into that of loky.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..contenders.base import Contender
from ..joblib_pools import TASKS, WAYS, Pool, pools
from ..model import Amount, Case, Goal, Sample, Setting

#: The times of loky for large arrays of NumPy and of this library.
GOALS = {"given": (1.5, 1.5), "results": (5, 50), "made": (5, 50)}


def best_of(made: dict[str, Pool], what: str, amount: int, repeats: int) -> dict[str, float]:
    """The fewest seconds of each way; the first turn does not count."""
    times: dict[str, list[float]] = {way: [] for way in made}
    for turn in range(repeats + 1):
        for way, pool in made.items():
            pool.ask(what, amount)
            taken = pool.answer()
            if turn:
                times[way].append(taken)
    return {way: min(each) for way, each in times.items()}


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    repeats = {"small": setting["small_repeats"], "large": setting["large_repeats"]}
    with pools() as made:
        two = {way: made[way] for way in ("loky", "NumPy's arrays")}
        best = best_of(two, "tasks", setting["tasks"], repeats["small"])
        yield Sample("tasks, loky", best["loky"])
        yield Sample("tasks, sharedmem", best["NumPy's arrays"])
        yield Sample("tasks, sharedmem / loky", best["NumPy's arrays"] / best["loky"], "ratio")
        for size in repeats:
            for what in TASKS:
                best = best_of(made, what, setting[size], repeats[size])
                for way, found in best.items():
                    yield Sample(f"{size}, {what}, {way}", found)
                for way in list(WAYS)[1:]:
                    yield Sample(f"{size}, {what}, {way}, times loky", best["loky"] / best[way], "times")


CASE = Case(
    name="joblib",
    title="joblib, two workers, arrays of {small} or {large}, {tasks} small tasks",
    measure=measure,
    contenders=("sharedmem",),
    floor="sharedmem",
    doc=__doc__,
    amounts={
        "small": Amount(6 << 20, 1 << 20),
        "large": Amount(256 << 20, 8 << 20),
        "small_repeats": Amount(9, 2, "times"),
        "large_repeats": Amount(4, 2, "times"),
        "tasks": Amount(1000, 50, "tasks"),
    },
    goals=(
        Goal("tasks, sharedmem / loky", at_most=1.03),
        *(
            Goal(f"large, {what}, {way}, times loky", at_least=least)
            for what, leasts in GOALS.items()
            for way, least in zip(("NumPy's arrays", "our arrays"), leasts, strict=True)
        ),
    ),
    timeout=1800.0,
    needs=("joblib",),
)
