"""Workers that share a list of jobs: they take the next one under a condition's lock, or wait for one."""

from multiprocessing import Process, SimpleQueue

import sharedmem

LAST = -1


def work(queue):
    condition, jobs, results = queue.get()  # multiprocessing's own could only be inherited
    while True:
        with condition:
            condition.wait_for(lambda: jobs["taken"] < jobs["given"])
            job = jobs["list"][jobs["taken"]]
            jobs["taken"] += 1
        if job == LAST:
            return
        results[job] = job**2


def main():
    queue = SimpleQueue()
    workers = [Process(target=work, args=(queue,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    condition = sharedmem.Condition()
    jobs = sharedmem.zeros((), [("given", int), ("taken", int), ("list", int, 100)])
    results = sharedmem.zeros(10, int)
    for _ in workers:
        queue.put((condition, jobs, results))
    for job in [*range(10), *[LAST] * len(workers)]:
        with condition:
            jobs["list"][jobs["given"]] = job
            jobs["given"] += 1
            condition.notify()
    for worker in workers:
        worker.join()
    print(results)


if __name__ == "__main__":
    main()
