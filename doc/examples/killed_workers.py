"""Workers that are killed and replaced while the work goes on. Every task is answered."""

from multiprocessing import Process
from queue import Empty

import numpy as np

import sharedmem

TASKS, WORKERS, KILLS = 60, 3, 5


def work(tasks, answers):
    for number, row in iter(tasks.get, None):
        answers.put((number, np.sqrt(row).sum()))


def start(tasks, answers):
    worker = Process(target=work, args=(tasks, answers), daemon=True)
    worker.start()
    return worker


def main():
    table = sharedmem.full((TASKS, 100_000), 4.0)
    tasks, answers = sharedmem.Queue(), sharedmem.Queue()
    tasks.put_many(enumerate(table))  # handles of the rows
    workers = [start(tasks, answers) for _ in range(WORKERS)]

    found, kills = {}, 0
    while len(found) < TASKS:
        try:
            number, total = answers.get(timeout=1)
        except Empty:
            if tasks.empty():  # the tasks that killed workers had in hand
                tasks.put_many((n, table[n]) for n in range(TASKS) if n not in found)
            continue
        found[number] = total
        if kills < KILLS and len(found) >= 10 * (kills + 1):
            which = kills % WORKERS
            workers[which].kill()  # as the OOM killer would, at any instruction
            workers[which].join()
            workers[which] = start(tasks, answers)
            kills += 1

    tasks.put_many([None] * WORKERS)
    for worker in workers:
        worker.join()
    print(f"{len(found)} of {TASKS} tasks answered, {kills} workers killed,", end=" ")
    print("all are right:", all(total == 200_000 for total in found.values()))


if __name__ == "__main__":
    main()
