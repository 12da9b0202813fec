"""A sweep over a parameter: every worker reads one table, which is in memory once."""

import tempfile
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np

import sharedmem


def measurements(rows):
    """A table of times and of what was measured then: an oscillation that fades, and a disturbance."""
    time = np.linspace(0, 20, rows)
    signal = np.exp(-time / 8) * np.sin(2.4 * time)
    return np.column_stack([time, signal + 0.1 * np.cos(1e4 * time**2)])


def misfit(table, frequency):
    """Mean square of what is left of the signal without the best oscillation of this frequency."""
    time, signal = table.T
    fading = np.exp(-time / 8)
    model = np.column_stack([fading * np.sin(frequency * time), fading * np.cos(frequency * time)])
    weights = np.linalg.lstsq(model, signal, rcond=None)[0]
    return np.mean((signal - model @ weights) ** 2)


def main():
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "measurements.npy"
        np.save(file, measurements(50_000))
        table = sharedmem.load(file)
    table = sharedmem.readonly(table)  # a process that gets it can only read the memory

    frequencies = np.arange(1.0, 4.01, 0.2).round(1)
    with ProcessPoolExecutor(3) as pool:
        misfits = list(pool.map(misfit, repeat(table), frequencies))
    print(len(misfits), "frequencies, the best is", frequencies[np.argmin(misfits)])


if __name__ == "__main__":
    main()
