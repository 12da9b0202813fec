"""Fixtures for all tests; above all the one that fails a test which leaves something behind."""

import ctypes
import multiprocessing

import hypothesis
import pytest
import remains
import support

hypothesis.settings.register_profile("sharedmem", deadline=None, print_blob=True)
hypothesis.settings.load_profile("sharedmem")


def pytest_configure(config):
    # Children whose parent died become ours instead of init's, so that none of them is overlooked.
    pr_set_child_subreaper = 36
    ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


@pytest.fixture(autouse=True)
def leaves_nothing():
    """Fails the test that leaves a segment, a file in /dev/shm or a child process; ends the child."""
    before = remains.Snapshot()
    yield
    left = remains.left_since(before)
    if left:
        pytest.fail("left behind: " + "; ".join(left), pytrace=False)


@pytest.fixture
def python():
    """A function that runs a snippet in a fresh interpreter: exit status 0, nothing on stderr.

    Every argument of `support.run_python` is understood; its result is what was printed.
    """
    return support.check_python


@pytest.fixture(params=support.START_METHODS)
def start_method(request):
    """Each start method of multiprocessing, by name."""
    return request.param


@pytest.fixture
def context(start_method):
    """A multiprocessing context of each start method."""
    return multiprocessing.get_context(start_method)


@pytest.fixture
def available_memory():
    """Scales a heavy test to the machine: available_memory(wanted, least) is a number of bytes.

    It is `wanted` where twice that much is available, less where it is not, and the test is
    skipped, saying so, where not even `least` fits. A smaller size is reported as a warning
    section of the test's output.
    """

    def scale(wanted, least):
        room = support.memory("MemAvailable") // 2
        if room < least:
            pytest.skip(f"{room >> 20} MiB may be used, {least >> 20} MiB are needed")
        if room < wanted:
            print(f"tried with {room >> 20} MiB instead of {wanted >> 20} MiB")
        return min(wanted, room)

    return scale
