"""The package SharedArray."""

import os
from multiprocessing import Process

import SharedArray

import sharedmem


def fill_before(name):
    a = SharedArray.attach(name)
    a[...] = 7


def before():
    name = f"shm://example-{os.getpid()}"
    a = SharedArray.create(name, 1000)
    try:
        worker = Process(target=fill_before, args=(name,))
        worker.start()
        worker.join()
    finally:
        SharedArray.delete(name)
    return a.sum()


def fill(a):
    a[...] = 7


def after():
    a = sharedmem.zeros(1000)
    worker = Process(target=fill, args=(a,))
    worker.start()
    worker.join()
    return a.sum()


if __name__ == "__main__":
    print(before(), after())
