"""A Pool whose arrays are ordinary ones, without and with one line: the same results, sooner."""

import sys
import time
from multiprocessing import Pool

import numpy as np

import sharedmem

IMAGES, HEIGHT, WIDTH = 16, 600, 800
WORKERS = 2


def images():
    """Grey images with a bright square each, as a reader of files would give them."""
    for number in range(IMAGES):
        image = np.zeros((HEIGHT, WIDTH))
        image[100 + 20 * number : 200 + 20 * number, 300:400] = 1.0
        yield image


def smooth(image):
    """The image, each pixel averaged with its neighbours, and its mean; it writes into its argument."""
    image[1:-1, 1:-1] += image[:-2, 1:-1] + image[2:, 1:-1] + image[1:-1, :-2] + image[1:-1, 2:]
    image /= 5
    return {"mean": image.mean(), "image": image}


def run(pool):
    """The results of all images, the images, and the seconds that the results took."""
    originals = list(images())
    start = time.perf_counter()
    results = pool.map(smooth, originals, chunksize=1)
    return results, originals, time.perf_counter() - start


def main():
    with Pool(WORKERS) as pool:
        before, _, _ = run(pool)

    sharedmem.transport()  # the one line: the workers that are started from now on have it, too
    with Pool(WORKERS) as pool:
        after, originals, _ = run(pool)

    same = all(np.array_equal(a["image"], b["image"]) for a, b in zip(before, after, strict=True))
    print("the same results:", same)
    print("the sender's images are as they were:", all(image.max() == 1.0 for image in originals))
    print("results are private:", not any(sharedmem.is_shared(r["image"]) for r in after))
    print("large arguments that went by the pipe:", sharedmem.stats()["transport"]["by_pipe"])


def measure(times=9):
    """Prints the least seconds without and with transport, of runs that take turns."""
    plain = Pool(WORKERS)
    seconds = {"without": [], "with": []}
    with plain, sharedmem.transport(), Pool(WORKERS) as pool:
        for _ in range(times):
            with sharedmem.transport(1 << 40):  # no message has that much
                seconds["without"].append(run(plain)[2])
            seconds["with"].append(run(pool)[2])
    print(", ".join(f"{name} {min(each) * 1e3:.0f} ms" for name, each in seconds.items()))


if __name__ == "__main__":
    measure() if "--measure" in sys.argv else main()
