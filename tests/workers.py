"""What runs in the children of the tests; importable by spawned and by unrelated processes.

Functions here take and return arrays by multiprocessing's pickler unless they say otherwise.
Nothing but the standard library is imported at the top, so that a child may run
functions before it imports NumPy or sharedmem.
"""

import contextlib
import ctypes
import faulthandler
import os
import pickle
import signal
import sys
import time
import traceback
from multiprocessing import connection
from multiprocessing.reduction import ForkingPickler

if sys.platform == "win32":
    CONNECTION = connection.PipeConnection
else:
    CONNECTION = connection.Connection

HELD = {}


class Uncaught(BaseException):
    """An exception that is not caught."""


def kill(pid=None):
    """Ends a process, or this one, at once: nothing of what it does at its end is done."""
    number = signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL  # there TerminateProcess
    os.kill(os.getpid() if pid is None else pid, number)


def interrupt():
    """What Ctrl-C does: this process's main thread is to raise KeyboardInterrupt. Any thread may call it.

    On Windows Ctrl-C calls Python's handler in a thread of its own, as this does in the calling thread. The
    handler also ends `time.sleep`, which `_thread.interrupt_main` does not.
    """
    if sys.platform == "win32":
        signal.raise_signal(signal.SIGINT)
    else:
        os.kill(os.getpid(), signal.SIGINT)


def was_killed(status):
    """Whether that is the exit status of a process that `kill`, or `kill` of multiprocessing, has ended."""
    return status in ((15, -15) if sys.platform == "win32" else (-signal.SIGKILL,))


def die_with_parent():
    """Asks for SIGKILL when the parent ends, so that a killed test run leaves nothing."""
    if sys.platform != "linux":
        return
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)


def serve(conn):
    """Answers requests (function, args) from `conn` until it closes or the function is None."""
    die_with_parent()
    with contextlib.suppress(EOFError, ConnectionResetError, BrokenPipeError):
        while answer_one(conn):
            pass
    conn.close()


def serve_descriptor(fd):
    serve(CONNECTION(fd))


def answer_one(conn):
    """Answers one request; what it was about is dropped before the answer goes."""
    answer = answer_to(conn.recv_bytes())
    if answer is not None:
        conn.send_bytes(answer)
    return answer is not None


def answer_to(message):
    """The answer as bytes, None to the last message; in a function of its own: no name keeps an array."""
    try:
        function, args = pickle.loads(message)
        return None if function is None else ForkingPickler.dumps(("returned", function(*args)))
    except Exception as error:
        trace = traceback.format_exc()
        return pickle.dumps(("raised", type(error).__name__, str(error), trace))


def exit_with(function):
    """Runs function() in a forked child and ends it without the parent's exit handlers."""
    status = 1
    try:
        function()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def fork_two_and_kill_one():
    """Pids of two forked children of this process: one that waits for its end, and one that was killed."""
    import sharedmem

    HELD["mine"] = sharedmem.ones(1000)
    reader, writer = os.pipe()
    pids = []
    for _ in range(2):
        pids.append(os.fork())
        if pids[-1] == 0:
            die_with_parent()
            os.write(writer, b"x")
            signal.pause()
        os.read(reader, 1)
    os.close(reader)
    os.close(writer)
    os.kill(pids[1], signal.SIGKILL)
    os.waitpid(pids[1], 0)
    return pids


# -- holding arrays between requests


def _attach_and_say_so(name, pipe):
    import sharedmem

    kept = sharedmem.attach(name)
    pipe.send(kept.shape)
    pipe.recv()  # until it is killed


def create_and_kill_a_holder(name):
    """A child that has an array which this process created is killed; its pid. Nobody clears up after it."""
    import sharedmem

    HELD[name] = sharedmem.create(name, 3)
    return _spawn_and_kill(_attach_and_say_so, name, says=(3,))


def spawn_and_kill_one():
    """A child that has an array in this process's arena is killed; its pid. Nobody clears up after it."""
    import sharedmem

    sharedmem.ones(1)
    return _spawn_and_kill(_have_an_array, says=1000)


def _spawn_and_kill(function, *args, says):
    """Kills a child once it `says` that; its pid. It calls the function, whose last argument is a pipe."""
    import multiprocessing

    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=function, args=(*args, theirs))
    child.start()
    assert ours.recv() == says
    child.kill()
    child.join()
    return child.pid


def _have_an_array(conn):
    import sharedmem

    a = sharedmem.ones(1000)
    conn.send(len(a))
    conn.recv()


def hold(key, value):
    HELD[key] = value


def held(key):
    return HELD[key]


def drop(*keys):
    for key in keys:
        del HELD[key]


def drop_all():
    HELD.clear()


# -- reading and writing


def describe(a):
    """What a receiver sees of an array; the bytes are a copy."""
    import sharedmem

    return {
        "type": type(a).__name__,
        "shape": a.shape,
        "strides": a.strides,
        "dtype": a.dtype,
        "writeable": a.flags.writeable,
        "shared": sharedmem.is_shared(a),
        "data": a.tobytes(),
        "aligned64": a.__array_interface__["data"][0] % 64 == 0,
    }


def store(a, index, value):
    a[index] = value


def store_held(key, index, value):
    HELD[key][index] = value


def fill(a, value):
    a[...] = value


def item(a, index):
    return a[index].item()


def item_held(key, index):
    return HELD[key][index].item()


def total(a):
    return a.sum().item()


def total_held(key):
    return HELD[key].sum().item()


def total_of_frame(key):
    return HELD[key].to_numpy().sum().item()


def add_to_all(objects):
    """Adds 1 to each array; the sum of all afterwards."""
    objects["frame"].iloc[:, :] += 1
    objects["array"] += 1
    return int(objects["frame"].to_numpy().sum() + objects["array"].sum())


def increment(a):
    """In-place work, then the array itself as result: a handle both ways."""
    a += 1
    return a


def echo(value):
    return value


# -- making arrays


def full(shape, value, dtype=float):
    import sharedmem

    return sharedmem.full(shape, value, dtype)


def hold_full(key, shape, value, dtype=float):
    """Makes an array that only this process holds; returns nothing."""
    HELD[key] = full(shape, value, dtype)


def hold_handle(key, handle):
    HELD[key] = pickle.loads(handle)


def plain_handle(key):
    """Bytes of an ordinary pickle, which keep nothing alive."""
    return pickle.dumps(HELD[key])


def leased_handle(key):
    """Bytes of multiprocessing's pickle, which keep the memory until they are loaded."""
    return bytes(ForkingPickler.dumps(HELD[key]))


def total_of_handle(handle):
    return pickle.loads(handle).sum().item()


def leased_as_hex(shape, value):
    """A message, not as bytes, since a reader of those from a connection becomes responsible for it."""
    return bytes(ForkingPickler.dumps(full(shape, value))).hex()


def object_as_hex():
    """A message of `dumps`, not as bytes: a reader of those from a connection would be responsible for it."""
    import sharedmem

    return sharedmem.dumps({"a": full(1000, 3.0), "b": full(1000, 4.0).copy()}).hex()


def stats():
    import sharedmem

    return sharedmem.stats()


def resident_bytes():
    """Bytes of memory of all kinds that this process has touched."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def collect():
    import sharedmem

    return sharedmem.collect()


# -- ways to end


def put(queue, a):
    queue.put(a)


def put_full(queue, shape, value):
    """Makes an array, sends it and ends: only the message holds it then."""
    queue.put(full(shape, value))


def send_full(conn, shape, value):
    conn.send(full(shape, value))
    conn.close()


def send_full_and_die(conn, shape, value):
    conn.send(full(shape, value))
    kill()


def send_full_and_exit_hard(conn, shape, value):
    conn.send(full(shape, value))
    os._exit(0)


def forward(source, target):
    """Receives one message and sends it on."""
    target.put(source.get())


def forward_many(source, target, number):
    """Receives messages and sends them on, keeping none."""
    for _ in range(number):
        forward(source, target)


def die(way):
    """Ends this process in one of many ways, without a core dump or a word on stderr."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.disable()
    if way == "sys.exit":
        sys.exit(3)
    if way == "os._exit":
        os._exit(3)
    if way == "exception":
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        raise Uncaught
    if way == "abort":
        os.abort()
    if way == "segfault":
        faulthandler._read_null() if sys.platform == "win32" else ctypes.string_at(0)  # ctypes raises there
    kill() if way == "kill" else os.kill(os.getpid(), getattr(signal, way))
    time.sleep(600)


def become_sleep():
    """Replaces this program without leaving anything in order."""
    os.execv("/bin/sleep", ["sleep", "600"])


def start_sleep(options):
    """Starts a program that outlives this process; returns its pid."""
    import subprocess

    quiet = subprocess.DEVNULL
    return subprocess.Popen(["sleep", "600"], stdin=quiet, stdout=quiet, stderr=quiet, **options).pid


def work_rounds(first, rounds):
    """Creates, shares, writes and drops arrays; the number of wrong elements seen."""
    import numpy as np

    import sharedmem

    wrong = 0
    kept = []
    for i in range(rounds):
        size = (first + i) * 37 % 3000 + 1
        a = sharedmem.full(size, first + i, np.int64)
        b = pickle.loads(pickle.dumps(a[::-1]))
        wrong += int((b != first + i).sum())
        kept.append((a, first + i))
        if len(kept) > 16:
            old, value = kept.pop(i % 16)
            wrong += int((old != value).sum())
    wrong += sum(int((old != value).sum()) for old, value in kept)
    return wrong
