"""The package of 2009: what it did is written as before, for Python 3."""

from multiprocessing import Lock, Process

import numpy as np

import sharedmem
import shmarray


def modify(a, lock):
    with lock:
        a[:3] = 1, 2, 3


def after():
    results = []
    for module in (sharedmem, shmarray):
        a = module.zeros((4,), dtype=np.float64)
        process = Process(target=modify, args=(a, Lock()))
        process.start()
        process.join()
        results.append(a.tolist())
    return results


if __name__ == "__main__":
    print(after())
