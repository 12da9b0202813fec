"""Fixtures for all tests; above all the one that fails a test which leaves something behind."""

import ctypes
import multiprocessing
import signal
import sys
from collections import Counter

import hypothesis
import needs
import pytest
import support

import sharedmem

if sys.platform == "win32":
    import remains_on_windows as remains
else:
    import remains

# The number and the speed of examples say nothing about faults: they differ with the seed and the machine.
hypothesis.settings.register_profile(
    "sharedmem", deadline=None, print_blob=True, suppress_health_check=list(hypothesis.HealthCheck)
)
hypothesis.settings.load_profile("sharedmem")


def pytest_collection_modifyitems(items):
    for item in items if needs.MISSING else ():
        for marker in sorted(needs.MISSING.keys() & needs.of(item)):
            item.add_marker(pytest.mark.skip(reason=needs.MISSING[marker]))


def pytest_terminal_summary(terminalreporter):
    """Where something is missing for good: how many tests that leaves out, by reason."""
    if not needs.MISSING:
        return
    skipped = Counter(
        report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.getreports("skipped")
    )
    terminalreporter.section("left out")
    for reason, number in skipped.most_common():
        terminalreporter.line(f"{number:5} {reason}")


def pytest_configure(config):
    if sys.platform != "linux":
        return
    # Children whose parent died become ours instead of init's, so that none of them is overlooked.
    pr_set_child_subreaper = 36
    ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)
    # A run in the background may ignore these (nohup, `&`); tests and their children count on them.
    for number, usual in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGQUIT, signal.SIG_DFL)):
        signal.signal(number, usual)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


passed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "call":
        item.stash[passed] = report.passed
    return report


@pytest.fixture(autouse=True)
def leaves_nothing(request):
    """Fails the test that leaves a segment, a file in /dev/shm or a child process; ends the child.

    A test that failed anyway is not blamed: its traceback keeps whatever it had.
    """
    sharedmem.collect(leases=True)  # counts begin without what processes of earlier tests left when they died
    before = remains.Snapshot()
    yield
    if request.node.stash.get(passed, False):
        left = remains.left_since(before)
        if left:
            pytest.fail("left behind: " + "; ".join(left), pytrace=False)
    else:
        remains.left_since(before, grace=0)


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
