"""The second: processes that are given a pickled array and a lock."""

import pickle
from multiprocessing import Lock, Process

import sharedmem as shm


def count(handle, lock):
    a = pickle.loads(handle)
    for _ in range(1000):
        with lock:  # without it some of the additions would be lost
            a[0] += 1


def main():
    a = shm.zeros(4, dtype=int)
    handle = pickle.dumps(a)  # some hundred bytes, whatever the size of `a`
    lock = Lock()
    workers = [Process(target=count, args=(handle, lock)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(a)


if __name__ == "__main__":
    main()
