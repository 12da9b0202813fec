"""multiprocessing's Value and Array, sent through a queue to workers that already run."""

from multiprocessing import Process, SimpleQueue

import sharedmem


def work(queue):
    counter, histogram = queue.get()  # multiprocessing's own could only be inherited
    for i in range(1000):
        with counter:  # `+=` reads and writes: no other process may come between
            counter.value += 1
        with histogram:
            histogram[i % 4] += 1


def main():
    queue = SimpleQueue()
    workers = [Process(target=work, args=(queue,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    counter = sharedmem.Value("l", 0)
    histogram = sharedmem.Array("l", 4)
    for _ in workers:
        queue.put((counter, histogram))
    for worker in workers:
        worker.join()
    print(counter.value, sharedmem.shmem_as_ndarray(histogram))


if __name__ == "__main__":
    main()
