"""Each process has the pages made that it will use: they lie on the memory node of its processor."""

import os
from multiprocessing import Process

import sharedmem

STEPS = 3


def work(processor, part):
    os.sched_setaffinity(0, {processor})
    part[...] = 0  # the first touch
    for _ in range(STEPS):
        part += 1


def main():
    table = sharedmem.empty((4, 1_000_000), populate=False)
    processors = sorted(os.sched_getaffinity(0))
    processes = [
        Process(target=work, args=(processors[k % len(processors)], part)) for k, part in enumerate(table)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    print(table.sum())


if __name__ == "__main__":
    main()
