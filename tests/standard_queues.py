"""CPython's own tests of queues, run against ours: ``python tests/standard_queues.py START_METHOD``.

The tests are those that the interpreter ships. `DIFFERENT` lists the tests that are expected to differ.
"""

import multiprocessing
import sys
import unittest

import test._test_multiprocessing as standard

import sharedmem

#: Test: why it is not run.
DIFFERENT = {
    "test_queue_feeder_donot_stop_onexc": "there is no feeder: `put` itself raises what the pickler raises",
    "test_queue_feeder_on_queue_feeder_error": "the hook of a feeder that is not there",
    "test_closed": "looks at private pipes of the class",  # of SimpleQueue
    # Of later Pythons than 3.14:
    "test_shutdown_empty": "there is no `shutdown`",
    "test_shutdown_nonempty": "there is no `shutdown`",
    "test_shutdown_immediate": "there is no `shutdown`",
    "test_shutdown_immediate_with_unfinished": "there is no `shutdown`",
}


class TestQueue(standard._TestQueue, unittest.TestCase):
    """Queue and JoinableQueue."""

    TYPE = "processes"
    Process = staticmethod(multiprocessing.Process)
    Event = staticmethod(multiprocessing.Event)
    Queue = staticmethod(sharedmem.Queue)
    JoinableQueue = staticmethod(sharedmem.JoinableQueue)


class TestSimpleQueue(standard.TestSimpleQueue):
    """SimpleQueue."""


for case in (TestQueue, TestSimpleQueue):
    for name, reason in DIFFERENT.items():
        if hasattr(case, name):
            setattr(case, name, unittest.skip(reason)(getattr(case, name)))

del case, name, reason

# The tests name the module's functions in places.
multiprocessing.Queue = sharedmem.Queue
multiprocessing.JoinableQueue = sharedmem.JoinableQueue
multiprocessing.SimpleQueue = sharedmem.SimpleQueue

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv.pop(1), force=True)
    unittest.main(verbosity=2)
