"""CPython's own tests of locks, events and conditions of multiprocessing, run over sharedmem's.

    python tests/cpython_locks.py START_METHOD

It prints what failed, a name a line, and "ran N". Python's distribution has these tests in its package
`test`, which some systems leave out. `DIFFERENT` lists the tests that are expected to differ.
"""

import multiprocessing
import multiprocessing.synchronize
import sys
import unittest

import test._test_multiprocessing as theirs

import sharedmem

#: Test: why it is not run. Those of later Pythons than the one that runs are not there.
DIFFERENT = {
    "test_repr_lock": "repr tells who holds the lock in other words, with a pid in place of a name",
    "test_repr_rlock": "as test_repr_lock",
}
if hasattr(multiprocessing.synchronize.SemLock, "locked"):
    ENDS = (
        "its process ends while it holds the lock, which stays locked for ever in multiprocessing; ours is "
        "then free for the next one"
    )
    DIFFERENT.update(dict.fromkeys(("test_lock_locked_2processes", "test_rlock_locked_2processes"), ENDS))


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


for name, reason in DIFFERENT.items():
    if hasattr(TestLock, name):
        setattr(TestLock, name, unittest.skip(reason)(getattr(TestLock, name)))


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
