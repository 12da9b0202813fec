"""A program whose arrays are made by code that knows nothing of shared memory."""

import io
from multiprocessing import Pool

import numpy as np

import sharedmem


def load_stack(file):
    """Somebody else's function: it loads, converts and computes with NumPy alone."""
    images = np.load(file).astype(np.float32)
    return images - images.mean(axis=(1, 2), keepdims=True)


def clip(image):
    """Cuts off what is below zero, in place."""
    np.maximum(image, 0, out=image)


def main():
    file = io.BytesIO()
    np.save(file, np.arange(4 * 100 * 100, dtype=np.uint16).reshape(4, 100, 100))
    file.seek(0)

    with sharedmem.allocator():
        stack = load_stack(file)
    print(type(stack).__name__, sharedmem.is_shared(stack), stack.min())

    with Pool(2) as pool:
        pool.map(clip, sharedmem.asshared(stack))  # a view: handles travel, no copies
    print(type(stack).__name__, sharedmem.is_shared(stack), stack.min())


if __name__ == "__main__":
    main()
