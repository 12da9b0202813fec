"""Processes that end in good order, several at once or one after the other: no message is lost with them."""

import os
import pickle
import signal
import subprocess
import sys
import uuid

import pytest
import support
import workers
from support import MARK, Remote, check_python, environment, marked, segments, wait_until

import sharedmem

LONG = {"SHAREDMEM_LINGER": 60}

#: On Windows no process can stay behind: a sender waits for its readers itself, for at most 2 seconds.
stays_behind = pytest.mark.needs_posix


@pytest.fixture
def mark():
    """A word in the environment by which the processes of a test are found. They are ended with the test."""
    mark = uuid.uuid4().hex
    yield mark
    for pid in marked(mark):
        os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not marked(mark))


def send(ending="", **env):
    """(pid, message) of a process of its own tree that sent an array of threes and has ended."""
    code = f"""
import os, sys
from multiprocessing.reduction import ForkingPickler
import sharedmem
a = sharedmem.full(1000, 3.0)
print(os.getpid(), bytes(ForkingPickler.dumps(a)).hex(), flush=True)
{ending}
"""
    pid, message = check_python(code, **env).split()
    return int(pid), bytes.fromhex(message)


def total_elsewhere(message):
    """The sum of the array in a message, read by a process of another tree."""
    with Remote("unrelated") as reader:
        return reader.call(workers.total_of_handle, message)


# -- whom a message needs


@stays_behind
def test_a_message_from_an_arena_that_is_no_longer_the_home():
    _, message = send("sharedmem.new_arena(); sharedmem.ones(1)", **LONG)
    assert total_elsewhere(message) == 3000


@stays_behind
def test_a_message_that_was_sent_on_by_a_process_of_another_tree():
    with Remote("unrelated", **LONG) as maker, Remote("unrelated", **LONG) as forwarder:
        maker.call(workers.hold_full, "a", 1000, 3.0)
        forwarder.call(workers.hold_handle, "a", maker.call(workers.leased_handle, "a"))
        assert maker.stop() == 0
        message = forwarder.call(workers.leased_handle, "a")
        assert forwarder.stop() == 0
    assert total_elsewhere(message) == 3000


def test_a_process_that_forwarded_an_array_and_dropped_it_keeps_its_arena():
    with Remote("unrelated", **LONG) as maker, Remote("unrelated", **LONG) as forwarder:
        maker.call(workers.hold_full, "a", 1000, 3.0)
        forwarder.call(workers.hold_handle, "a", maker.call(workers.leased_handle, "a"))
        assert maker.stop() == 0
        message = forwarder.call(workers.leased_handle, "a")
        forwarder.call(workers.drop, "a")
        assert total_elsewhere(message) == 3000


@pytest.mark.parametrize("ends", [False, pytest.param(True, marks=stays_behind)])
def test_a_receiver_that_is_done_keeps_the_arena_for_the_others(ends):
    with Remote("unrelated", **LONG) as maker, Remote("unrelated", **LONG) as receiver:
        maker.call(workers.hold_full, "a", 1000, 3.0)
        first, second = (maker.call(workers.leased_handle, "a") for _ in range(2))
        receiver.call(workers.hold_handle, "a", first)
        assert maker.stop() == 0
        receiver.call(workers.drop, "a")
        if ends:
            assert receiver.stop() == 0
        assert total_elsewhere(second) == 3000


# -- several that end at the same moment

# Each of them sees the other arrive at its last statement.
TOGETHER = """
import os, sys
from multiprocessing.reduction import ForkingPickler
import sharedmem
flag = sharedmem.zeros(int(sys.argv[1]), "i8")
print(bytes(ForkingPickler.dumps(sharedmem.full(1000, 3.0))).hex(), flush=True)
me = 0
for other in range(1, len(flag)):
    if os.fork() == 0:
        me = other
        break
flag[me] = 1
while not flag.all():
    pass
sys.exit(0)
"""


@pytest.mark.parametrize("number", [2, 3])
def test_all_participants_end_at_the_same_moment(number):
    for _ in range(5):
        message = bytes.fromhex(check_python(TOGETHER, number, **LONG))
        assert total_elsewhere(message) == 3000


END_TOGETHER = """
import pickle, sys
from multiprocessing.reduction import ForkingPickler
import sharedmem
sharedmem.ones(1)
a, flag = pickle.loads(bytes.fromhex(sys.argv[1]))
print("here", flush=True)
sys.stdin.readline()
flag[int(sys.argv[2])] = 1
while not flag.all():
    pass
del a, flag
"""


@stays_behind
def test_the_last_two_of_an_arena_are_of_two_other_trees_and_end_at_the_same_moment():
    for _ in range(3):
        with Remote("unrelated", **LONG) as maker:
            maker.call(workers.hold_full, "a", 1000, 3.0)
            maker.call(workers.hold_full, "flag", 2, 0, "i8")
            pairs = [maker.call(leased_pair) for _ in range(2)]
            unread = maker.call(workers.leased_handle, "a")
            users = [
                subprocess.Popen(
                    [sys.executable, "-c", END_TOGETHER, pair.hex(), str(i)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=environment(related=False, **LONG),
                )
                for i, pair in enumerate(pairs)
            ]
            assert [user.stdout.readline() for user in users] == [b"here\n"] * 2
            assert maker.stop() == 0
            for user in users:
                user.stdin.close()
            assert [user.wait(support.TIMEOUT) for user in users] == [0, 0]
            for user in users:
                user.stdout.close()
        assert total_elsewhere(unread) == 3000


def leased_pair():
    return support.dumps((workers.HELD["a"], workers.HELD["flag"]))


# -- messages that are sent late


LATE = {
    "a handler that was registered before the import": """
import atexit
def send():
    print(bytes(ForkingPickler.dumps(a)).hex(), flush=True)
atexit.register(send)
from multiprocessing.reduction import ForkingPickler
import sharedmem
a = sharedmem.full(1000, 3.0)
""",
    "an object that goes with its module": """
import os
from multiprocessing.reduction import ForkingPickler
import sharedmem
class Sender:
    def __init__(self):
        self.a, self.dumps, self.write = sharedmem.full(1000, 3.0), ForkingPickler.dumps, os.write
    def __del__(self):
        self.write(1, bytes(self.dumps(self.a)).hex().encode())
kept = Sender()
""",
    "a child that was forked by hand": """
import atexit, os, time
from multiprocessing.reduction import ForkingPickler
import sharedmem
parent = os.getpid()
if os.fork():
    os._exit(0)
while os.getppid() == parent:
    time.sleep(0.001)
atexit.register(lambda: print(bytes(ForkingPickler.dumps(sharedmem.full(1000, 3.0))).hex(), flush=True))
""",
}


@pytest.mark.parametrize("case", LATE)
def test_sent_at_the_very_end(mark, case):
    message = bytes.fromhex(check_python(LATE[case], **LONG, **{MARK: mark}))
    assert len(marked(mark)) == 1
    assert total_elsewhere(message) == 3000


# The parent has neither NumPy nor sharedmem until it reads; the linger is shorter than the thread runs.
LATE_WORKER = """
import multiprocessing, sys
import late_workers
context = multiprocessing.get_context(sys.argv[1])
queue = context.SimpleQueue()
worker = context.Process(target=getattr(late_workers, sys.argv[2]), args=(queue,))
worker.start()
worker.join(60)
assert worker.exitcode == 0
assert "sharedmem" not in sys.modules
total = 0
while not queue.empty():
    total += queue.get().sum()
print(total)
queue.close()
"""

WORKERS = """
import threading, time

def put_late(queue):
    import sharedmem
    a = sharedmem.full(1000, 3.0)
    def work():
        time.sleep(0.5)
        queue.put(a)
    threading.Thread(target=work).start()

def put_early_and_late(queue):
    import sharedmem
    queue.put(sharedmem.full(1000, 3.0))
    put_late(queue)

def put_and_exit(queue):
    import sharedmem, sys
    queue.put(sharedmem.full(1000, 3.0))
    sys.exit(0)
"""


@pytest.mark.parametrize("worker", ["put_late", "put_early_and_late", "put_and_exit"])
@pytest.mark.parametrize("start_method", support.START_METHODS)
def test_sent_by_a_worker_whose_parent_has_not_imported_the_library(tmp_path, mark, start_method, worker):
    (tmp_path / "late_workers.py").write_text(WORKERS)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{LATE_WORKER}"
    said = check_python(code, start_method, worker, SHAREDMEM_LINGER=5, **{MARK: mark})
    assert float(said) == (6000 if worker == "put_early_and_late" else 3000)


# -- what lingers


def memory_of(pid):
    """(resident, proportional) bytes that a process has, without segments of arenas."""
    resident = proportional = 0
    counts = False
    with open(f"/proc/{pid}/smaps") as file:
        for line in file:
            word, _, rest = line.partition(" ")
            if "-" in word and not word.endswith(":"):
                counts = "/SYSV" not in rest and "/memfd:sharedmem" not in rest
            elif counts and word == "Rss:":
                resident += int(rest.split()[0]) * 1024
            elif counts and word == "Pss:":
                proportional += int(rest.split()[0]) * 1024
    return resident, proportional


PRIVATE = """
import ctypes, mmap, numpy, os, signal, tempfile, threading
signal.signal(signal.SIGTERM, lambda *_: None)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
kept = [numpy.ones(400 << 17), bytearray(1 << 20), ["a small string %d" % i for i in range(100_000)]]
file = tempfile.NamedTemporaryFile(prefix="mapped_by_parent_")
file.truncate(1 << 20)
mapped = mmap.mmap(file.fileno(), 1 << 20)
mapped[:] = bytes(1 << 20)
"""


def test_what_lingers_is_small_and_has_nothing_of_its_parent(mark):
    _, message = send(PRIVATE, SHAREDMEM_LINGER=60, **{MARK: mark})
    (pid,) = marked(mark)
    assert wait_until(lambda: blocked_signals(pid) == 0), "signals are let through when all is unmapped"
    assert os.listdir(f"/proc/{pid}/fd") == []
    resident, proportional = memory_of(pid)
    print(f"the lingering process: {resident >> 10} KiB resident, {proportional >> 10} KiB proportional")
    assert resident < 8 << 20
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    files = {line.split(maxsplit=5)[5] for line in open_maps(pid).splitlines() if "/" in line}
    names = {os.path.basename(file) for file in files if not file.startswith("/SYSV")}
    assert all(name.startswith(("lib", "ld-", "memfd:sharedmem")) for name in names), names
    assert len(names) <= 3, names
    assert signal_masks(pid, "SigCgt", "SigIgn") == {0}
    assert total_elsewhere(message) == 3000


def signal_masks(pid, *names):
    """The masks of a process by their names in /proc, without the signals that the C library keeps."""
    with open(f"/proc/{pid}/status") as file:
        status = dict(line.split(":\t", 1) for line in file if ":\t" in line)
    return {int(status[name], 16) & ~(1 << 31 | 1 << 32) for name in names}


def blocked_signals(pid):
    (mask,) = signal_masks(pid, "SigBlk")
    return mask


def open_maps(pid):
    with open(f"/proc/{pid}/maps") as file:
        return file.read()


def test_what_lingers_ends_by_the_first_signal(mark):
    maker, message = send(PRIVATE, SHAREDMEM_LINGER=600, **{MARK: mark})
    (pid,) = marked(mark)
    os.kill(pid, signal.SIGTERM)
    assert wait_until(lambda: not marked(mark))
    assert wait_until(lambda: not segments(maker))
    with pytest.raises(sharedmem.StaleHandleError):
        pickle.loads(message)


def test_one_process_lingers_for_all_arenas(mark):
    code = """
    from multiprocessing.reduction import ForkingPickler
    import sharedmem
    for i in range(3):
        sharedmem.new_arena()
        print(bytes(ForkingPickler.dumps(sharedmem.full(1000, 1.0 + i))).hex(), flush=True)
    """
    messages = [bytes.fromhex(word) for word in check_python(code, **LONG, **{MARK: mark}).split()]
    assert len(marked(mark)) == 1
    for i, message in enumerate(messages):
        assert len(marked(mark)) == 1
        assert total_elsewhere(message) == 1000 * (1 + i)
    assert wait_until(lambda: not marked(mark))


def test_a_first_process_that_does_not_reap_is_left_a_zombie_without_memory():
    support.needs_namespaces("--pid", "--fork", "--mount-proc")
    code = f"""
import os, subprocess, sys, time
import sharedmem
if os.getpid() == 1:                    # like the main program of many containers
    sharedmem.ones(1)
    sent = subprocess.run([sys.executable, "-c", {SEND_AND_END!r}], capture_output=True, check=True,
                          env={{**os.environ, "SHAREDMEM_ARENA": "", "SHAREDMEM_LINGER": "0.1"}})
    maker = int(sent.stdout)
    def made():
        with open("/proc/sysvipc/shm") as file:
            return [line for line in list(file)[1:] if int(line.split()[4]) == maker]
    def zombies():
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{{pid}}/stat") as file:
                    found += [pid] * (file.read().rpartition(")")[2].split()[0] == "Z")
            except OSError:
                pass
        return found
    while not zombies() or made():
        time.sleep(0.01)
    print(len(zombies()))
"""
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code],
        capture_output=True,
        env=environment(related=False),
        timeout=support.TIMEOUT,
    )
    assert (done.returncode, done.stdout) == (0, b"1\n"), done.stderr.decode()


SEND_AND_END = """
import os
from multiprocessing.reduction import ForkingPickler
import sharedmem
ForkingPickler.dumps(sharedmem.ones(10))
print(os.getpid())
"""
