"""A sample of NumPy's own tests with NumPy's arrays in shared memory; numpy_suite.py runs all of them."""

import re
import subprocess
import sys

import numpy_suite
import pytest
import support

SAMPLE = ("_core/test_indexing.py", "_core/test_shape_base.py", "lib/test_shape_base.py")


@pytest.mark.parametrize("zeros", [False, True])
def test_numpys_own_tests_pass(zeros):
    if "_core" not in numpy_suite.parts():
        pytest.skip("this NumPy has no tests, or keeps them elsewhere")
    done = subprocess.run(
        [sys.executable, numpy_suite.__file__, *(["--zeros"] if zeros else []), *SAMPLE],
        env=support.environment(related=False),
        capture_output=True,
        text=True,
        timeout=support.TIMEOUT,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    allocator = "sharedmem, zeros too" if zeros else "sharedmem"
    began = re.search(rf"(\d+) tests began with NumPy's data memory from {allocator}\n", done.stdout)
    assert int(began[1]) > 200
