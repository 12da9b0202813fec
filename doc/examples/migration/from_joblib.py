"""joblib, which copies large arguments to files and maps them read-only."""

import tempfile
from pathlib import Path

import joblib
import numpy as np
from joblib import Parallel, delayed

import sharedmem


def scale(out, a, i):
    out[i] = 2 * a[i]


def before():
    a = np.ones((4, 500_000))
    with tempfile.TemporaryDirectory() as folder:
        joblib.dump(a, Path(folder) / "a")
        mapped = joblib.load(Path(folder) / "a", mmap_mode="r")
        out = np.memmap(Path(folder) / "out", a.dtype, "w+", shape=a.shape)
        Parallel(n_jobs=2)(delayed(scale)(out, mapped, i) for i in range(4))
        return out.sum().item()


def after():
    a = sharedmem.ones((4, 500_000))
    out = sharedmem.empty(a.shape)
    Parallel(n_jobs=2)(delayed(scale)(out, a, i) for i in range(4))
    return out.sum().item()


if __name__ == "__main__":
    print(before(), after())
