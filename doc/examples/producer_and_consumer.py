"""A producer that sends frames through a queue; the consumer sees each without a copy."""

from multiprocessing import Process, Queue

import numpy as np

import sharedmem

FRAMES = 5


def produce(queue):
    for number in range(FRAMES):
        frame = sharedmem.empty((1080, 1920, 3), np.uint8)
        frame[...] = number
        queue.put(frame)  # and forget it: the message keeps the memory until it is received
    queue.put(None)


def main():
    queue = Queue(maxsize=2)  # bounds the memory in flight
    producer = Process(target=produce, args=(queue,))
    producer.start()
    while (frame := queue.get()) is not None:
        print(frame.shape, frame.dtype, frame.max())
        del frame  # its memory serves the next frame
    producer.join()


if __name__ == "__main__":
    main()
