"""Workers that return large arrays."""

from concurrent.futures import ProcessPoolExecutor

import sharedmem


def table(n):
    a = sharedmem.empty((n, n))
    a[...] = n
    return a


def main():
    with ProcessPoolExecutor(2) as pool:
        tables = list(pool.map(table, [100, 200, 300]))
    for a in tables:  # the workers have ended; the memory has not
        print(a.shape, a[0, 0], sharedmem.is_shared(a))


if __name__ == "__main__":
    main()
