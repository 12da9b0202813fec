"""numpy.memmap, which is pickled with its data, so that workers are told the path instead."""

import os
import tempfile
from multiprocessing import Pool

import numpy as np

import sharedmem


def double_before(path, first, last):
    rows = np.load(path, mmap_mode="r+")[first:last]
    rows *= 2
    rows.flush()


def before(path):
    a = np.lib.format.open_memmap(path, "w+", "f8", (100, 10))
    a[:] = 3
    a.flush()
    with Pool(2) as pool:
        pool.starmap(double_before, [(path, first, first + 25) for first in range(0, 100, 25)])
    return a.sum()


def double(rows):
    rows *= 2
    sharedmem.flush(rows)


def after(path):
    a = sharedmem.open_memmap(path, "w+", "f8", (100, 10))
    a[:] = 3
    with Pool(2) as pool:
        pool.map(double, [a[first : first + 25] for first in range(0, 100, 25)])
    return a.sum()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a.npy")
        print(before(path), after(path))
