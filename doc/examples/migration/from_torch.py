"""torch.multiprocessing."""

from multiprocessing import get_context

import torch
import torch.multiprocessing

import sharedmem


def produce_before(queue, received):
    queue.put(torch.ones(1000))
    received.wait()  # the tensor would be lost if this process ended now


def before():
    context = torch.multiprocessing.get_context("spawn")
    queue, received = context.Queue(), context.Event()
    producer = context.Process(target=produce_before, args=(queue, received))
    producer.start()
    tensor = queue.get()
    received.set()
    producer.join()
    return tensor.sum().item()


def produce(queue):
    queue.put(sharedmem.ones(1000, "f4"))  # and end


def after():
    context = get_context("spawn")
    queue = context.Queue()
    producer = context.Process(target=produce, args=(queue,))
    producer.start()
    producer.join()
    tensor = torch.from_numpy(queue.get())  # no copy
    return tensor.sum().item()


if __name__ == "__main__":
    print(before(), after())
