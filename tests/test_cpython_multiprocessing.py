"""A sample of CPython's own tests of multiprocessing, whose outcomes the library must not change.

All of them are run by `cpython_multiprocessing.py`, which takes minutes.
"""

import cpython_multiprocessing
import pytest

#: By start method: parts of the names of tests that send objects in many ways, by processes and by managers.
SAMPLE = {
    "fork": (
        "WithProcessesTestQueue.test_get",
        "WithProcessesTestQueue.test_fork",
        "WithProcessesTestPool.test_map",
        "WithProcessesTestPool.test_wrapped_exception",
        "WithProcessesTestPicklingConnections",
        "WithProcessesTestConnection",
        "WithManagerTestQueue.test_put",
        "WithManagerTestRemoteManager",
        "WithManagerTestMyManager",
    ),
    "spawn": ("WithProcessesTestConnection.test_connection", "WithManagerTestMyManager.test_mymanager"),
}


@pytest.mark.parametrize("method", SAMPLE)
def test_outcomes_are_the_same_with_and_without_the_library(method, capsys):
    pytest.importorskip("test._test_multiprocessing", reason="this Python comes without its tests")
    different = cpython_multiprocessing.compare(method, SAMPLE[method])
    printed = capsys.readouterr().out
    assert different == 0, printed
    assert "'passed': " in printed
