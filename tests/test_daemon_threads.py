"""Daemon threads that are inside of the library while the interpreter ends.

Python up to 3.13 ends such a thread by `pthread_exit` as soon as it requests the GIL, which unwinds its
stack: a function of the library that must not be unwound would abort the process.
"""

import pytest
from support import check_python

PROGRAM = """
import builtins, pickle, threading, time
import numpy as np
import sharedmem

def wait(*_):
    time.sleep(0.002)       # gives the GIL up, as any Python code may

class Waits:
    __bool__ = lambda self: wait() or True
    __index__ = lambda self: wait() or 4

class Tagged(sharedmem.SharedArray):
    __array_finalize__ = wait

class Reduced(sharedmem.SharedArray):
    __reduce__ = lambda self: wait() or (int, ())

class Restored(sharedmem.SharedArray):
    __setstate__ = wait

def stale():
    try:
        pickle.loads(gone)
    except ValueError:
        pass

def slowly(*args, plain=builtins.__import__):
    wait()
    return plain(*args)

shared = sharedmem.zeros(3)
tagged, reduced, plain = shared.view(Tagged), shared.view(Reduced), np.zeros(3)
handle, restored = pickle.dumps(tagged), pickle.dumps(shared.view(Restored))
gone = pickle.dumps(sharedmem.ones(3))
stale()

def work():
    while True:
        WORK

for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.2)
"""

WORK = {
    "made": "sharedmem.zeros_like(tagged)",
    "viewed": "shared.view(Tagged)",
    "loaded": "pickle.loads(handle)",
    "state set": "pickle.loads(restored)",
    "pickled by a subclass": "pickle.dumps(reduced)",
    "pickled": "shared.__reduce_ex__(Waits())",
    "flags set": "shared.setflags(write=Waits())",
    "wrapped": "shared.__array_wrap__(plain, None, Waits())",
    "an error": "builtins.__import__ = slowly; stale()",
}


@pytest.mark.parametrize("work", WORK)
def test_the_process_ends_in_order(work):
    check_python(PROGRAM.replace("WORK", WORK[work]), SHAREDMEM_LINGER=0)
