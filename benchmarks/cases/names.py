"""Names of small arrays, and what another process has made.

Timed by `timeit`, in one process: making an array of 80 bytes under a name and
taking the name and the array away again; attaching one that exists and dropping
it; a list of 2 names, and of 100. Each library does it as its documentation
says: SharedArray's names are files, those of `multiprocessing.shared_memory`
have neither shape nor dtype, which are put together here as its users do, and
it has no list.

"What another process has made" is `get_or_create` of a name that is bound. The
floor is the usual recipe: a lock by the package filelock around a look for a
file, then ``np.load(mmap_mode="r")``.

Two more floors are this library's own: ``attach(readonly=True)`` of what another
process has made; loading a handle of an array that lives, and joining its arena
by that.

Not by `timeit`: the first attach in a process, from which it finds and joins the
arena of names, while 50 other segments are there, the median of several new
processes, which have imported everything; and the time from the death of a process
that builds, by SIGKILL, to the start of the next one, which waits for it; the median
of several.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import os
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from typing import Any

import numpy as np

from ..contenders.base import Contender
from ..measuring import time_statement
from ..model import Case, Goal, Sample, Setting

CREATE, ATTACH = "create and unlink", "attach and drop"
LIST, LONG_LIST = "list of 2 names", "list of 100 names"
MADE, DEATH = "what another process has made", "death of a builder to the next one's start"
FIRST = "first in a process, with 50 other segments"
RECIPE, READING, HANDLE = "filelock and np.load", "attach(readonly=True)", "loading a handle"
PREFIX = f"benchmark-{os.getpid()}-"


class _Sharedmem:
    def __init__(self) -> None:
        import sharedmem

        self.create = lambda name: sharedmem.create(name, 10)
        self.attach = sharedmem.attach
        self.delete: Callable[[str], None] = sharedmem.unlink
        self.list: Callable[[], Any] | None = sharedmem.names


class _SharedArray:
    def __init__(self) -> None:
        import SharedArray

        self.create = lambda name: SharedArray.create("shm://" + name, 10)
        self.attach = lambda name: SharedArray.attach("shm://" + name)
        self.delete = lambda name: SharedArray.delete("shm://" + name)
        self.list = SharedArray.list


class _SharedMemory:
    list = None

    def __init__(self) -> None:
        from multiprocessing import shared_memory

        self.memory = shared_memory.SharedMemory
        self.made: dict[str, Any] = {}

    def create(self, name: str) -> Any:
        self.made[name] = memory = self.memory(name, create=True, size=80)
        return np.ndarray((10,), np.float64, memory.buf)

    def attach(self, name: str) -> Any:
        memory = self.memory(name)
        np.ndarray((10,), np.float64, memory.buf)
        memory.close()

    def delete(self, name: str) -> None:
        memory = self.made.pop(name)
        memory.unlink()
        with contextlib.suppress(BufferError):  # the caller's array goes next
            memory.close()


LIBRARIES = {"sharedmem": _Sharedmem, "SharedArray": _SharedArray, "shared_memory": _SharedMemory}


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    library = LIBRARIES[contender.name]()
    names = {
        "create": library.create,
        "delete": library.delete,
        "attach": library.attach,
        "name": PREFIX + "x",
    }
    yield Sample(CREATE, time_statement("a = create(name); delete(name); del a", names, setting.seconds))
    kept = [library.create(f"{PREFIX}{i}") for i in range(2)]
    names["name"] = PREFIX + "0"
    yield Sample(ATTACH, time_statement("attach(name)", names, setting.seconds))
    if library.list is not None:
        names["list"] = library.list
        yield Sample(LIST, time_statement("list()", names, setting.seconds))
        kept += [library.create(f"{PREFIX}{i}") for i in range(2, 100)]
        yield Sample(LONG_LIST, time_statement("list()", names, setting.seconds))
    for i in range(len(kept)):
        library.delete(f"{PREFIX}{i}")
    del kept[:]
    if contender.name == "sharedmem":
        yield from _once(setting)


def _once(setting: Setting) -> Iterator[Sample]:
    import sharedmem

    kept = sharedmem.get_or_create(PREFIX + "made", functools.partial(np.ones, 10))
    names = {"get": sharedmem.get_or_create, "name": PREFIX + "made", "build": kept.copy}
    yield Sample(MADE, time_statement("get(name, build)", names, setting.seconds))
    yield Sample(FIRST, _first(attach_first, PREFIX + "made", setting))
    yield Sample(DEATH, statistics.median(_death() for _ in range(setting.repeats(9, 3))))


def _build(said: Any, sleeps: float) -> None:
    import sharedmem

    def build() -> np.ndarray:
        said.send(time.monotonic())
        time.sleep(sleeps)
        return np.ones(10)

    sharedmem.get_or_create(PREFIX + "death", build)


def _death() -> float:
    context = get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    first = context.Process(target=_build, args=(theirs, 60))
    first.start()
    ours.recv()
    second = context.Process(target=_build, args=(theirs, 0))
    second.start()
    time.sleep(0.3)  # it waits by then
    died = time.monotonic()
    first.kill()
    started = ours.recv()
    for process in (first, second):
        process.join()
    return started - died


def recipe(setting: Setting) -> Iterator[Sample]:
    try:
        import filelock
    except ImportError:
        return
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "made.npy")
        np.save(file, np.ones(10))

        def get() -> np.ndarray:
            with filelock.FileLock(file + ".lock"):
                if not os.path.exists(file):
                    raise AssertionError
            return np.load(file, mmap_mode="r")

        yield Sample(MADE, time_statement("get()", {"get": get}, setting.seconds))


@contextlib.contextmanager
def _others(count: int) -> Iterator[None]:
    """So many System V segments of another program."""
    libc = ctypes.CDLL(None)
    made = [libc.shmget(0, 4096, 0o1600) for _ in range(count)]
    try:
        yield
    finally:
        for each in made:
            libc.shmctl(each, 0, None)


def attach_first(name: str, answer: Any) -> None:
    import sharedmem
    import sharedmem._names

    began = time.perf_counter()
    array = sharedmem.attach(name)
    answer.send(time.perf_counter() - began)
    del array


def load_first(message: bytes, answer: Any) -> None:
    importlib.import_module("sharedmem._handles")
    began = time.perf_counter()
    array = pickle.loads(message)
    answer.send(time.perf_counter() - began)
    del array


def _first(use: Callable[[Any, Any], None], what: Any, setting: Setting) -> float:
    """Seconds of the first use in a process; the median of several."""
    context = get_context("spawn")
    times = []
    with _others(50):
        for _ in range(setting.repeats(15, 3)):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=use, args=(what, theirs))
            process.start()
            times.append(ours.recv())
            process.join()
    return statistics.median(times)


def reading(setting: Setting) -> Iterator[Sample]:
    import sharedmem

    kept = sharedmem.create(PREFIX + "read", 10)
    statement = "attach(name, readonly=True)"
    names = {"attach": sharedmem.attach, "name": PREFIX + "read"}
    yield Sample(MADE, time_statement(statement, names, setting.seconds))
    del kept


def handle(setting: Setting) -> Iterator[Sample]:
    import sharedmem

    kept = sharedmem.ones(10)
    message = pickle.dumps(kept)
    names = {"loads": pickle.loads, "message": message}
    yield Sample(ATTACH, time_statement("loads(message)", names, setting.seconds))
    yield Sample(FIRST, _first(load_first, message, setting))
    del kept


CASE = Case(
    name="names",
    title="names of arrays of 80 bytes",
    measure=measure,
    contenders=("sharedmem", "SharedArray", "shared_memory"),
    floor=RECIPE,
    floors={RECIPE: recipe, READING: reading, HANDLE: handle},
    doc=__doc__,
    goals=(
        Goal(CREATE, "SharedArray", at_most=0.25),
        Goal(ATTACH, "SharedArray", at_most=0.25),
        Goal(ATTACH, HANDLE, at_most=1.5),
        Goal(MADE, RECIPE, at_most=0.05),
        Goal(MADE, READING, at_most=1.1),
        Goal(FIRST, HANDLE, at_most=1.5),
        Goal(DEATH, at_most=0.25),
    ),
)
