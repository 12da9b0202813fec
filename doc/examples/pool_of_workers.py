"""The first example of the package of 2009: a task of a pool modifies an array in place."""

from multiprocessing import Pool

import sharedmem as shm


def modify_array(a):
    a[:, :3] = 1


def main():
    a = shm.zeros((2, 4))
    with Pool(2) as pool:
        pool.apply(modify_array, (a,))
    print(a)


if __name__ == "__main__":
    main()
