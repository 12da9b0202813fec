"""A pre-fork server: the master and its workers have one model, those that are forked later included."""

import os
import signal
import socket

import numpy as np

import sharedmem

NAME = "prefork-server-model-v1"


def read_model():
    """What takes long and much memory: here 1 MB."""
    print("the model is read", flush=True)
    model = sharedmem.empty((1000, 125))
    model[:] = np.arange(1000.0)[:, None]
    return model


def serve(listener):
    model = sharedmem.get_or_create(NAME, read_model)
    while True:
        connection, _ = listener.accept()
        with connection:
            row = int(connection.recv(100))
            connection.sendall(str(model[row].sum()).encode())


def start_worker(listener):
    if (pid := os.fork()) == 0:
        try:
            serve(listener)
        finally:
            os._exit(1)
    return pid


def ask(listener, row):
    with socket.create_connection(listener.getsockname()) as connection:
        connection.sendall(str(row).encode())
        return float(connection.recv(100))


def end(worker, by):
    os.kill(worker, by)
    os.waitpid(worker, 0)


def main():
    kept = sharedmem.get_or_create(NAME, read_model)  # while workers come and go
    with socket.create_server(("127.0.0.1", 0)) as listener:
        workers = [start_worker(listener) for _ in range(3)]
        print([ask(listener, row) for row in (3, 14, 159)])
        end(workers.pop(), signal.SIGKILL)
        workers.append(start_worker(listener))
        print([ask(listener, row) for row in (265, 358, 979)])
        for worker in workers:
            end(worker, signal.SIGTERM)
    print("read-only:", not kept.flags.writeable)


if __name__ == "__main__":
    main()
