"""What the cases of peak memory share: the memory of processes now, and the points of a case."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from .model import Sample


def memory(pids: list[int]) -> int:
    """Bytes of some processes together."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def samples(
    peak: Callable[[str, str, int], int], tasks: Iterable[str], ways: Sequence[str], size: int
) -> Iterator[Sample]:
    """The peak of each task by each way, also in arrays of `size` bytes, and compared with the first way."""
    usual, *others = ways
    for what in tasks:
        found = {way: peak(what, way, size) for way in ways}
        for way, most in found.items():
            yield Sample(f"{what}, {way}", most, unit="bytes")
            yield Sample(f"{what}, {way}, arrays", most / size, unit="ratio")
        for way in others:
            yield Sample(f"{what}, {way} / {usual}", found[way] / found[usual], unit="ratio")
