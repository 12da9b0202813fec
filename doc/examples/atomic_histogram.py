"""Workers count into one histogram at the same time, and no count is lost."""

from multiprocessing import Process

import numpy as np

import sharedmem
from sharedmem import atomics


def work(values, histogram, done):
    atomics.add_at(histogram, values, 1)  # np.add.at would lose counts of the others
    atomics.add(done, 0, 1)
    atomics.notify(done, 0)


def main():
    values = sharedmem.array(np.arange(400_000) % 8)
    histogram = sharedmem.zeros(8, int)
    done = sharedmem.zeros(1, "i4")
    parts = np.split(values, 4)
    workers = [Process(target=work, args=(part, histogram, done)) for part in parts]
    for worker in workers:
        worker.start()
    while (count := atomics.load(done, 0)) < len(workers):
        atomics.wait(done, 0, count)  # sleeps until it is another one
    print(histogram)
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
