"""multiprocessing.shared_memory."""

import os
from multiprocessing import Process, shared_memory

import numpy as np

import sharedmem


def fill_before(name, shape, dtype):
    memory = shared_memory.SharedMemory(name=name)
    a = np.ndarray(shape, dtype, buffer=memory.buf)
    a[...] = 7
    del a  # or close() would raise BufferError, or leave `a` dangling
    memory.close()


def before():
    memory = shared_memory.SharedMemory(create=True, size=1000 * 8)
    try:
        a = np.ndarray((1000,), np.int64, buffer=memory.buf)
        worker = Process(target=fill_before, args=(memory.name, a.shape, a.dtype))
        worker.start()
        worker.join()
        result = a.sum()
        del a
    finally:
        memory.close()
        memory.unlink()
    return result


def fill(a):
    a[...] = 7


def after():
    a = sharedmem.empty(1000, np.int64)
    worker = Process(target=fill, args=(a,))
    worker.start()
    worker.join()
    return a.sum()


def fill_by_name(name):
    a = sharedmem.attach(name)
    a[...] = 7


def after_by_name():
    name = f"example-{os.getpid()}"
    a = sharedmem.create(name, 1000, np.int64)
    worker = Process(target=fill_by_name, args=(name,))
    worker.start()
    worker.join()
    return a.sum()


if __name__ == "__main__":
    print(before(), after(), after_by_name())
