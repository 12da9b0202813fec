"""Tools for tests of arrays in files."""

import numpy as np
import pytest


@pytest.fixture(name="file")
def file_of_numbers(tmp_path):
    """A .npy file of 30 x 4 numbers."""
    path = tmp_path / "a.npy"
    np.save(path, np.arange(120.0).reshape(30, 4))
    return path


def mappings(path):
    """Rights of each mapping of a file in this process."""
    with open("/proc/self/maps") as maps:
        return [line.split()[1] for line in maps if line.rstrip().endswith(str(path))]
