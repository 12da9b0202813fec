"""One array from processes of every kind: forked, spawned, of a fork server, and a stranger."""

import multiprocessing
import os
import pickle
import subprocess
import sys

import sharedmem

STRANGER = """
import pickle, sys
a = pickle.load(sys.stdin.buffer)
a += 1
"""


def add_one(a):
    a += 1
    return a


def main():
    early = sharedmem.zeros(1000)
    for method in ("fork", "spawn", "forkserver"):  # Windows has only "spawn"
        if method not in multiprocessing.get_all_start_methods():
            continue
        with multiprocessing.get_context(method).Pool(1) as pool:
            late = sharedmem.zeros(1000)  # the worker runs already
            pool.map(add_one, [early, late])
            returned = pool.apply(add_one, (late,))
            late += 1
            print(method, early[0], late[0], returned[0])

    # A program that was not started by this one, as far as it can tell.
    environment = {name: text for name, text in os.environ.items() if name != "SHAREDMEM_ARENA"}
    subprocess.run([sys.executable, "-c", STRANGER], input=pickle.dumps(early), env=environment, check=True)
    print("stranger", early[0])


if __name__ == "__main__":
    main()
