"""Batches of torch's DataLoader, sent by each of torch's strategies and by `sharedmem.torch.install`.

Timed: an epoch over images that lie in memory, from asking for its first batch to having dealt with its last.
Two workers stack the images, with the numbers of the samples as labels. The three DataLoaders take turns
within one process, an epoch each, so that all meet the same moments of the machine; their workers stay from
epoch to epoch. A point has the fastest of these epochs, in images a second. Not timed: the first epoch of
each, starting the workers, making the images.

"copied": the consumer copies each batch into one private tensor, as it would on the way to a GPU. "not looked
at": it drops each batch. Points that end in "times" say how often this library's rate contains that of a
strategy of torch's.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..contenders.base import Contender
from ..model import Amount, Case, Goal, Sample, Setting

WORKERS = 2
STRATEGIES = ("file_descriptor", "file_system")
OURS = "sharedmem"


class Images:
    """As many samples as an epoch has; the images of one batch are used again and again."""

    def __init__(self, torch: Any, setting: Setting) -> None:
        side = setting["side"]
        self.images = [
            torch.from_numpy(np.full((3, side, side), number % 256, np.uint8))
            for number in range(setting["batch"])
        ]
        self.count = setting["batch"] * setting["batches"]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[Any, int]:
        return self.images[number % len(self.images)], number


def loaders(module: Any, setting: Setting) -> dict[str, Any]:
    """A DataLoader for each way. Its workers, which are forked here, keep what was set then."""
    torch, data = importlib.import_module("torch"), importlib.import_module("torch.utils.data")
    images = Images(torch, setting)
    made = {}
    before = torch.multiprocessing.get_sharing_strategy()
    try:
        for way in (*STRATEGIES, OURS):
            if way == OURS:
                module.torch.install()
            else:
                torch.multiprocessing.set_sharing_strategy(way)
            made[way] = data.DataLoader(
                images,
                setting["batch"],
                num_workers=WORKERS,
                persistent_workers=True,
                multiprocessing_context="fork",
            )
            for _ in made[way]:
                pass
    finally:
        module.torch.uninstall()
        torch.multiprocessing.set_sharing_strategy(before)
    return made


def rate(loader: Any, use: Callable[[Any], None], setting: Setting) -> float:
    """Images a second of an epoch."""
    start = time.perf_counter()
    total = 0
    for images, labels in loader:
        use(images)
        total += int(labels[0])
    taken = time.perf_counter() - start
    batches, size = setting["batches"], setting["batch"]
    if total != size * batches * (batches - 1) // 2:
        raise RuntimeError("the batches are not those that were asked for")
    return size * batches / taken


def measure(contender: Contender, setting: Setting) -> Iterator[Sample]:
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    made = loaders(contender.module, setting)  # type: ignore[attr-defined]
    side = setting["side"]
    own = torch.zeros((setting["batch"], 3, side, side), dtype=torch.uint8)

    def copy(images: Any) -> None:
        own.copy_(images)

    def look_away(images: Any) -> None:
        pass

    for name, use in (("copied", copy), ("not looked at", look_away)):
        rates: dict[str, list[float]] = {way: [] for way in made}
        for _ in range(setting["epochs"]):
            for way, loader in made.items():
                rates[way].append(rate(loader, use, setting))
        best = {way: max(each) for way, each in rates.items()}
        for way, found in best.items():
            yield Sample(f"{name}, {way}", found, "1/s")
        for way in STRATEGIES:
            yield Sample(f"{name}, times {way}", best[OURS] / best[way], "times")


CASE = Case(
    name="torch_loader",
    title="torch's DataLoader, two workers, batches of {batch} images of 3 x {side} x {side} bytes",
    measure=measure,
    contenders=("sharedmem",),
    floor="sharedmem",
    doc=__doc__,
    amounts={
        "batch": Amount(256, 32, "images"),
        "side": Amount(224, 64, "pixels"),
        "batches": Amount(20, 4, "batches"),
        "epochs": Amount(9, 2, "epochs"),
    },
    goals=(
        Goal("copied, times file_descriptor", at_least=4),
        Goal("copied, times file_system", at_least=4),
    ),
    timeout=1200.0,
    needs=("torch",),
)
