"""A service that sends a whole object to each client that connects, by a message of some hundred bytes."""

import socket
import tempfile
from multiprocessing import Process

import numpy as np

import sharedmem

CLIENTS = 3


def client(path, number):
    with socket.socket(socket.AF_UNIX) as conn:
        conn.connect(path)
        with conn.makefile("rb") as file:
            message = file.read()
    model = sharedmem.loads(message)  # the same memory as the service has, not a copy
    model["scores"][number] = model["weights"][number].sum()


def main():
    model = sharedmem.share(
        {
            "name": "linear",
            "weights": np.arange(3_000_000.0).reshape(CLIENTS, -1) % 7,
            "scores": np.zeros(CLIENTS),
        }
    )
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as service:
        path = f"{folder}/service"
        service.bind(path)
        service.listen()
        clients = [Process(target=client, args=(path, number)) for number in range(CLIENTS)]
        for each in clients:
            each.start()
        for _ in clients:
            with service.accept()[0] as conn:
                message = sharedmem.dumps(model)
                conn.sendall(message)
        for each in clients:
            each.join()
    print(model["name"], model["scores"])
    print("less than 1000 bytes a message:", len(message) < 1000)


if __name__ == "__main__":
    main()
