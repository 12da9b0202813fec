"""Images smoothed by several processes: a stack in place, then one large picture by strips."""

from itertools import pairwise
from multiprocessing import Pool

import numpy as np

import sharedmem


def rings(height, width, period):
    """A picture of rings around its centre, with values from 0 to 1."""
    y, x = np.ogrid[:height, :width]
    return 0.5 + 0.5 * np.cos(np.hypot(y - height / 2, x - width / 2) * 2 * np.pi / period)


def mean_of_neighbours(image):
    """Mean of each inner pixel and its eight neighbours, a new and smaller array."""
    rows = image[:-2] + image[1:-1] + image[2:]
    return (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9


def smooth(image):
    """Smooths an image in place, without its border."""
    image[1:-1, 1:-1] = mean_of_neighbours(image)


def smooth_strip(source, target):
    """Smooths `source`, with a row more at either side, into `target`."""
    target[:, 1:-1] = mean_of_neighbours(source)


def main():
    stack = sharedmem.empty((12, 240, 320))
    for number, image in enumerate(stack):
        image[...] = rings(240, 320, period=4 + number)
    original = np.array(stack)

    picture = sharedmem.array(rings(1200, 900, period=9))
    smoothed = sharedmem.copy(picture)
    edges = np.linspace(1, 1199, 9).astype(int)
    strips = [(picture[low - 1 : high + 1], smoothed[low:high]) for low, high in pairwise(edges)]

    with Pool(3) as pool:
        pool.map(smooth, list(stack))
        pool.starmap(smooth_strip, strips)

    for image in original:
        smooth(image)
    print("stack as by one process:", np.array_equal(stack, original))
    expected = mean_of_neighbours(np.array(picture))
    print("picture as by one process:", np.array_equal(smoothed[1:-1, 1:-1], expected))


if __name__ == "__main__":
    main()
