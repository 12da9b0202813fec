"""CPython's own tests of locks, events and conditions of multiprocessing, run over sharedmem's.

    python tests/cpython_locks.py START_METHOD

It prints what failed, a name a line, and "ran N". Python's distribution has these tests in its package
`test`, which some systems leave out.
"""

import multiprocessing
import sys
import unittest

import test._test_multiprocessing as theirs

import sharedmem


class Mixin(theirs.ProcessesMixin):
    Lock = staticmethod(sharedmem.Lock)
    RLock = staticmethod(sharedmem.RLock)
    Event = staticmethod(sharedmem.Event)
    Condition = staticmethod(sharedmem.Condition)


class TestLock(Mixin, theirs._TestLock, unittest.TestCase):
    pass


class TestEvent(Mixin, theirs._TestEvent, unittest.TestCase):
    pass


class TestCondition(Mixin, theirs._TestCondition, unittest.TestCase):
    def check_invariant(self, cond):
        """Theirs looks at semaphores inside a condition; ours has none."""


def main(start_method):
    multiprocessing.set_start_method(start_method, force=True)
    load = unittest.defaultTestLoader.loadTestsFromTestCase
    suite = unittest.TestSuite(map(load, (TestLock, TestEvent, TestCondition)))
    result = unittest.TextTestRunner(sys.stderr, verbosity=2).run(suite)
    for case, _ in (*result.failures, *result.errors):
        print(f"{type(case).__name__}.{case._testMethodName}")
    print(f"ran {result.testsRun}")


if __name__ == "__main__":
    main(sys.argv[1])
