"""Measures one shared array of each size: created, filled, sent, verified elsewhere, released.

    python doc/large_arrays.py [--most 8GiB] [--write]

prints a table; with --write it becomes `doc/large_arrays.inc`, the table of the documentation. Sizes
go from one byte to `--most`, by default half of the memory that is available.
"""

import argparse
import multiprocessing
import platform
import resource
import time
from pathlib import Path

import numpy as np

import sharedmem

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SIZES = [1, KIB, 64 * KIB, MIB, 2 * MIB + 1, 64 * MIB, GIB, 2 * GIB + 1, 4 * GIB + 1]
STEP = 4 * MIB  # bytes filled or compared at a time

COLUMNS = [
    "bytes",
    "create",
    "fill",
    "send",
    "verify",
    "release",
    "resident",
    "faults here",
    "faults there",
]


class Pattern:
    """Bytes that differ from part to part. It makes its buffers once: their faults are no array's."""

    def __init__(self):
        self.first = (np.arange(STEP) % 251).astype(np.uint8)
        self.expected = np.ones_like(self.first)
        self.equal = np.ones(STEP, bool)

    def write(self, part, number):
        np.add(self.first[: part.size], np.uint8(number % 256), out=part)

    def fill(self, a):
        for number, start in enumerate(range(0, a.size, STEP)):
            self.write(a[start : start + STEP], number)

    def is_in(self, a):
        """Whether `a` is as `fill` leaves it, every byte looked at."""
        for number, start in enumerate(range(0, a.size, STEP)):
            part = a[start : start + STEP]
            expected, equal = self.expected[: part.size], self.equal[: part.size]
            self.write(expected, number)
            if not np.equal(part, expected, out=equal).all():
                return False
        return True


def page_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def serve(conn):
    """Verifies the arrays that come, until None comes."""
    pattern = Pattern()
    while (a := conn.recv()) is not None:
        before, arrival = page_faults(), time.perf_counter()
        right = pattern.is_in(a)
        end, faults = time.perf_counter(), page_faults() - before
        del a
        conn.send((right, arrival, end, faults))


def measure(nbytes, pattern, conn):
    """A row of the table, as numbers."""
    sharedmem.cleanup()
    at_rest = sharedmem.stats()["mapped_bytes"]
    before = page_faults()
    times = [time.perf_counter()]  # of the system's clock, which processes share
    a = sharedmem.empty(nbytes, np.uint8)
    times.append(time.perf_counter())
    pattern.fill(a)
    times.append(time.perf_counter())
    faults = page_faults() - before
    resident = sharedmem.stats()["mapped_bytes"] - at_rest
    sent = time.perf_counter()
    conn.send(a)
    right, arrival, end, faults_there = conn.recv()
    if not right:
        raise SystemExit(f"{nbytes} bytes did not arrive as they were")
    dropped = time.perf_counter()
    del a
    sharedmem.cleanup()
    spans = [*np.diff(times), arrival - sent, end - arrival, time.perf_counter() - dropped]
    left = sharedmem.stats()["mapped_bytes"] - at_rest
    if left > 4 * MIB:
        raise SystemExit(f"{left} of {nbytes} bytes are still resident")
    return [nbytes, *spans, resident, faults, faults_there]


def seconds(value):
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1e3:.2f} ms" if value >= 1e-3 else f"{value * 1e6:.1f} us"


def amount(nbytes):
    for unit, factor in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if nbytes >= factor:
            return f"{nbytes / factor:.2f} {unit}"
    return f"{nbytes} B"


def as_text(row):
    nbytes, *times, resident, faults, faults_there = row
    return [f"{nbytes:,}", *map(seconds, times), amount(resident), f"{faults:,}", f"{faults_there:,}"]


def table(rows):
    """A reStructuredText table of the measured rows."""
    cells = [COLUMNS, *map(as_text, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rule = " ".join("=" * width for width in widths)
    first, *rest = [
        " ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells
    ]
    return "\n".join([rule, first, rule, *rest, rule])


def machine():
    """One line on where this was measured."""
    with open("/proc/meminfo") as file:
        ram = int(file.readline().split()[1]) * KIB
    return (
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, Linux {platform.release()}, {platform.machine()}, "
        f"{multiprocessing.cpu_count()} cores, {amount(ram)} of memory, Python {platform.python_version()}, "
        f"NumPy {np.__version__}."
    )


def available():
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) * KIB for line in file if line.startswith("MemAvailable"))


def parse_size(text):
    number, unit = text.rstrip("KMGiB"), text.strip("0123456789.")
    return int(float(number) * {"": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB}[unit])


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--most", type=parse_size, default=available() // 2, help="largest size, such as 8GiB"
    )
    parser.add_argument("--write", action="store_true", help="write doc/large_arrays.inc")
    options = parser.parse_args()
    sizes = [size for size in SIZES if size <= options.most]
    whole = options.most // GIB * GIB
    if whole > sizes[-1]:
        sizes.append(whole)
    sharedmem.new_arena()  # whatever else runs in this process tree
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    verifier = context.Process(target=serve, args=(theirs,))
    verifier.start()
    pattern = Pattern()
    measure(MIB, pattern, ours)  # what happens at first use is not an array's
    rows = [measure(size, pattern, ours) for size in sizes]
    ours.send(None)
    verifier.join()
    text = f"{table(rows)}\n\n{machine()}\n"
    print(text)
    if options.write:
        Path(__file__).with_suffix(".inc").write_text(text)


if __name__ == "__main__":
    main()
