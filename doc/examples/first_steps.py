"""A pool of workers on one array."""

from multiprocessing import Pool

import numpy as np

import sharedmem


def brighten(image):
    image += 10  # the same memory, not a copy


def main():
    stack = sharedmem.zeros((64, 270, 480), np.uint8)
    with Pool(4) as pool:
        pool.map(brighten, list(stack))
    print(stack.min(), stack.max(), sharedmem.is_shared(stack[3, ::2]))


if __name__ == "__main__":
    main()
