"""A camera that never waits for viewers, and viewers that always see its newest frame."""

from multiprocessing import Process

import sharedmem

LAST = 100


def view(latest, seen):
    number = 0
    while number < LAST:
        frame, number = latest.get(after=number)  # waits for one that is newer; copies nothing
        assert (frame == number).all()
    seen.set()


def main():
    latest = sharedmem.Latest()
    seen = [sharedmem.Event() for _ in range(3)]
    viewers = [Process(target=view, args=(latest, event)) for event in seen]
    for viewer in viewers:
        viewer.start()
    for number in range(1, LAST + 1):
        frame = sharedmem.empty((480, 640), "u1")  # memory that no viewer has any more is used again
        frame.fill(number)
        latest.put(frame)
    for viewer, event in zip(viewers, seen, strict=True):
        print("saw the last one:", event.wait())
        viewer.join()


if __name__ == "__main__":
    main()
