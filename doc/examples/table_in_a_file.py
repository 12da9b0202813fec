"""A table in a .npy file, filled by several processes in place, then read by others that cannot change it."""

import os
import tempfile
from multiprocessing import Pool

import numpy as np

import sharedmem

ROWS, COLUMNS = 6000, 50


def fill(part, first):
    """Writes rows of the table; `part` is a view of the file."""
    part[:] = np.arange(first, first + len(part))[:, None] * np.linspace(0, 1, COLUMNS)
    sharedmem.flush(part)


def best_row(part, first):
    """The row with the largest sum. `part` is opened for reading: its worker cannot write to it."""
    return first + int(part.sum(axis=1).argmax())


def parts(table):
    return [(table[first : first + 1000], first) for first in range(0, ROWS, 1000)]


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "table.npy")
        table = sharedmem.open_memmap(path, "w+", "f4", (ROWS, COLUMNS))
        with Pool(3) as pool:
            pool.starmap(fill, parts(table))
        print("as NumPy loads it:", np.load(path)[4321, -1])

        table = sharedmem.load(path, mmap_mode="r")
        with Pool(3) as pool:
            print("best rows:", pool.starmap(best_row, parts(table)))

        os.truncate(path, os.path.getsize(path) // 2)
        with Pool(1) as pool:
            try:
                pool.starmap(best_row, parts(table)[-1:])
            except ValueError as error:
                print("refused:", str(error).partition(": ")[2])


if __name__ == "__main__":
    main()
