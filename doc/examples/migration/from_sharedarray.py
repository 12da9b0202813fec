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


def fill(name):
    a = sharedmem.attach(name)
    a[...] = 7


def after():
    name = f"example-{os.getpid()}"
    a = sharedmem.create(name, 1000)
    worker = Process(target=fill, args=(name,))
    worker.start()
    worker.join()
    return a.sum()


if __name__ == "__main__":
    print(before(), after())
