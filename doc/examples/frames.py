"""A camera that produces frames, and processes that look for the bright spot in each of them."""

from multiprocessing import Process

import numpy as np

import sharedmem

FRAMES, HEIGHT, WIDTH = 40, 240, 320
CONSUMERS = 2


def camera(frames):
    """Puts frames into the queue, each with its number, and then an end for each consumer."""
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    for number in range(FRAMES):
        frame = sharedmem.empty((HEIGHT, WIDTH), np.float32)
        spot_y, spot_x = 60 + 3 * number, 40 + 5 * number
        frame[...] = np.hypot(y - spot_y, x - spot_x) < 12
        frames.put((number, frame))
    for _ in range(CONSUMERS):
        frames.put(None)


def consumer(frames, found):
    """Puts the number of each frame and the centre of its bright spot into the second queue."""
    for number, frame in iter(frames.get, None):
        y, x = np.nonzero(frame)
        found.put((number, round(y.mean()), round(x.mean())))


def main():
    frames = sharedmem.Queue(maxsize=8)  # the camera waits for slow consumers
    found = sharedmem.Queue()
    processes = [Process(target=camera, args=(frames,))]
    processes += [Process(target=consumer, args=(frames, found)) for _ in range(CONSUMERS)]
    for process in processes:
        process.start()
    centres = sorted(found.get() for _ in range(FRAMES))
    for process in processes:
        process.join()
    for number, y, x in centres[:: FRAMES // 4]:
        print(f"frame {number}: spot at {y}, {x}")
    print("still in the queue:", frames.qsize(), "frames")


if __name__ == "__main__":
    main()
