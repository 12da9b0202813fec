"""Workers of a server that share one table, whichever of them starts first."""

import multiprocessing

import numpy as np

import sharedmem


def read_model():
    """What takes long and much memory: here 1 MB."""
    model = sharedmem.empty((1000, 125))
    model[:] = np.arange(1000.0)[:, None]
    return model


def serve(requests, answers):
    model = sharedmem.get_or_create("server-workers-model-v1", read_model)
    for row in iter(requests.get, None):
        answers.put((row, float(model[row].sum())))


def main():
    requests, answers = multiprocessing.Queue(), multiprocessing.Queue()
    workers = [multiprocessing.Process(target=serve, args=(requests, answers)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for row in (3, 14, 159, 265):
        requests.put(row)
    print(sorted(answers.get() for _ in range(4)))
    for _ in workers:
        requests.put(None)
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
