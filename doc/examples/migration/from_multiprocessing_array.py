"""multiprocessing.Array and RawArray."""

import multiprocessing
from multiprocessing import Pool

import numpy as np

import sharedmem


def keep(raw):
    global array
    array = np.frombuffer(raw.get_obj()).reshape(4, 1000)


def double_row_before(i):
    array[i] *= 2


def before():
    raw = multiprocessing.Array("d", 4000)
    a = np.frombuffer(raw.get_obj()).reshape(4, 1000)
    a[...] = 1
    with Pool(2, initializer=keep, initargs=(raw,)) as pool:
        pool.map(double_row_before, range(4))
    return a.sum()


def double_row(row):
    row *= 2


def after():
    a = sharedmem.ones((4, 1000))
    with Pool(2) as pool:
        pool.map(double_row, list(a))
    return a.sum()


if __name__ == "__main__":
    print(before(), after())
