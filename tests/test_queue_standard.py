"""CPython's own tests of queues pass with this library's, under each start method."""

import os
import re
import subprocess
import sys

import pytest
import support

pytest.importorskip("test._test_multiprocessing", reason="this interpreter comes without its tests")

RUN = os.path.join(support.TESTS, "standard_queues.py")


def test_standard_tests_of_queues(start_method):
    ended = subprocess.run(
        [sys.executable, RUN, start_method], capture_output=True, text=True, timeout=4 * support.TIMEOUT
    )
    assert ended.returncode == 0, ended.stderr
    # What `DIFFERENT` lists there; Pythons with `shutdown` have four more tests.
    assert re.search(r"^OK \(skipped=[37]\)$", ended.stderr, re.MULTILINE), ended.stderr
    print(ended.stderr)
