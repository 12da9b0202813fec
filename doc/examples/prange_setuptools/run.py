"""Heat conduction in a plate: processes of several threads each, on slices of two shared arrays."""

import itertools
import multiprocessing

import kernel
import numpy as np

import sharedmem

PROCESSES = 2
STEPS = 20


def plate(shape):
    """A cold plate with two warm edges."""
    a = sharedmem.zeros(shape)
    a[0] = 100
    a[:, 0] = 50
    return a


def parts(rows):
    """Where each process begins and ends, the first and last row left out."""
    edges = np.linspace(1, rows - 1, PROCESSES + 1).astype(int).tolist()
    return list(itertools.pairwise(edges))


def main():
    old, new = plate((400, 300)), plate((400, 300))
    expected = np.array(old)
    # spawn: a forked child must not use OpenMP if its parent did.
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        for _ in range(STEPS):
            tasks = [(old[lo - 1 : hi + 1], new[lo:hi]) for lo, hi in parts(len(old))]
            pool.starmap(kernel.step, tasks)
            old, new = new, old
    for _ in range(STEPS):
        inner = expected[:-2, 1:-1] + expected[2:, 1:-1] + expected[1:-1, :-2] + expected[1:-1, 2:]
        expected[1:-1, 1:-1] = 0.25 * inner
    print("in shared memory:", kernel.lies_in_shared_memory(old), kernel.lies_in_shared_memory(expected))
    print("as NumPy computes it:", np.allclose(old, expected))


if __name__ == "__main__":
    main()
