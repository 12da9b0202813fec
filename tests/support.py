"""Tools for all tests: worker processes, interpreters, and queries about the system."""

import contextlib
import gc
import multiprocessing
import os
import pickle
import platform
import re
import signal
import subprocess
import sys
import textwrap
import time
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import workers

# Whose numbers of system calls this process uses: a 32-bit program may run on a 64-bit kernel.
MACHINE = "i386" if platform.machine() == "x86_64" and sys.maxsize < 2**32 else platform.machine()

TESTS = os.path.dirname(os.path.abspath(__file__))

# Seconds after which a child counts as stuck; no test claims that anything is fast.
TIMEOUT = float(os.environ.get("SHAREDMEM_TEST_TIMEOUT", "90"))

START_METHODS = tuple(
    method for method in ("fork", "spawn", "forkserver") if method in multiprocessing.get_all_start_methods()
)

# For tests that need a process, started in any way: fork, where there is fork.
QUICKEST = START_METHODS[0]


def context_of(method):
    """A multiprocessing context; None where that start method is missing, for constants of test modules."""
    return multiprocessing.get_context(method) if method in START_METHODS else None


# "subprocess" inherits the environment and so belongs to our tree; "unrelated" does not.
KINDS = (*START_METHODS, "subprocess", "unrelated")

LOCATOR = "SHAREDMEM_ARENA"
# The environment variable by which a test finds its processes, those too whose parent has ended.
MARK = "SHAREDMEM_TEST_MARK"

needs_64_bit = pytest.mark.skipif(sys.maxsize < 2**32, reason="too large for the address space of 32 bit")
needs_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root of POSIX")


def dumps(value):
    """What multiprocessing would send, as bytes."""
    return bytes(ForkingPickler.dumps(value))


class RemoteError(Exception):
    """A worker's function raised; `kind` is the exception's class, by name."""

    def __init__(self, kind, message, trace):
        super().__init__(f"{kind}: {message}\n{trace}")
        self.kind = kind
        self.message = message


class Remote:
    """A child process that runs functions on request (`workers.serve` is its side)."""

    def __init__(self, kind=QUICKEST, **env):
        self.kind = kind
        self.conn, theirs = multiprocessing.Pipe()
        if kind in START_METHODS:
            context = multiprocessing.get_context(kind)
            self.process = context.Process(target=workers.serve, args=(theirs,), daemon=True)
            self.process.start()
            self.popen = None
            self.pid = self.process.pid
        else:
            self.popen = start_server(theirs, environment(related=kind == "subprocess", **env))
            self.pid = self.popen.pid
        theirs.close()

    def call(self, function, *args):
        """Result of function(*args), called in the child."""
        self.conn.send((function, args))
        del args
        return self.result()

    def result(self):
        """Next answer of the child; what its function raised is a RemoteError here."""
        if not self.conn.poll(TIMEOUT):
            self.kill()
            raise AssertionError(f"the {self.kind} worker did not answer in {TIMEOUT} s")
        answer = self.conn.recv()
        if answer[0] == "raised":
            raise RemoteError(*answer[1:])
        return answer[1]

    def signal(self, number):
        os.kill(self.pid, number)

    def wait(self):
        """Exit status of the child, negative for a signal; a stuck child is killed."""
        if self.popen is not None:
            try:
                return self.popen.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                self.kill()
        else:
            self.process.join(TIMEOUT)
            if self.process.exitcode is not None:
                return self.process.exitcode
            self.kill()
        raise AssertionError(f"the {self.kind} worker did not end in {TIMEOUT} s")

    def stop(self):
        """Ends the child in good order and returns its exit status."""
        if self.exitcode() is None:
            with contextlib.suppress(OSError):
                self.conn.send((None, ()))
        return self.wait()

    def exitcode(self):
        return self.process.exitcode if self.popen is None else self.popen.poll()

    def kill(self):
        if self.popen is not None:
            self.popen.kill()
            self.popen.wait()
        else:
            self.process.kill()
            self.process.join()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        try:
            if kind is None:
                self.stop()
            else:
                self.kill()
        finally:
            self.conn.close()
            if self.popen is None:
                self.process.close()


def start_server(conn, env, prefix=()):
    """Starts an interpreter that serves requests from `conn`."""
    code = "import sys, workers; workers.serve_descriptor(int(sys.argv[1]))"
    fd = conn.fileno()  # on Windows a handle
    command = [*prefix, sys.executable, "-c", code, str(fd)]
    if sys.platform == "win32":
        os.set_handle_inheritable(fd, True)
        return subprocess.Popen(command, close_fds=False, env=env)
    return subprocess.Popen(command, pass_fds=[fd], env=env)


def connect_server(prefix, env):
    """(popen, connection) of a server behind a command prefix such as `unshare`."""
    ours, theirs = multiprocessing.Pipe()
    try:
        return start_server(theirs, env, prefix), ours
    finally:
        theirs.close()


def ask(conn, function, *args):
    """Result of function(*args) in the server at the other end of `conn`."""
    assert isinstance(conn, workers.CONNECTION)
    conn.send((function, args))
    assert conn.poll(TIMEOUT), "no answer"
    answer = conn.recv()
    if answer[0] == "raised":
        raise RemoteError(*answer[1:])
    return answer[1]


def environment(*, related=True, **changes):
    """Environment for an interpreter of this process's tree, or of a tree of its own."""
    env = dict(os.environ)
    if not related:
        env.pop(LOCATOR, None)
    path = [TESTS, *filter(None, [env.get("PYTHONPATH")])]
    env["PYTHONPATH"] = os.pathsep.join(path)
    env.update({name: str(value) for name, value in changes.items()})
    return env


def run_python(code, *args, related=False, flags=(), prefix=(), data=b"", shell=None, **env):
    """Runs `code` in an interpreter of its own to the end; (returncode, stdout, stderr).

    Its whole process group is killed if it gets stuck. `shell` is a line of shell that is to
    run first, in the same process.
    """
    command = [sys.executable, *flags, "-c", textwrap.dedent(code), *map(str, args)]
    if shell is not None:
        command = ["sh", "-c", f'{shell}\nexec "$@"', "sh", *command]
        if sys.platform == "win32":
            pytest.skip("needs a shell of POSIX")
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*prefix, *command],
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        env=environment(related=related, **env),
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(data, TIMEOUT)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                if sys.platform == "win32":
                    process.kill()
                else:
                    os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, out, err


def check_python(code, *args, **options):
    """Runs `code` as `run_python`, requires success and an empty stderr; its stdout, as text."""
    status, out, err = run_python(code, *args, **options)
    said = f"exit status {status}\n{out.decode(errors='replace')}\n{err.decode(errors='replace')}"
    assert (status, err) == (0, b""), said
    return out.decode().replace(os.linesep, "\n").strip()


def needs_namespaces(*options):
    """Skips the test unless `unshare` can make these namespaces."""
    try:
        done = subprocess.run(["unshare", *options, "true"], capture_output=True, timeout=TIMEOUT)
    except FileNotFoundError:
        pytest.skip("needs unshare")
    if done.returncode != 0:
        pytest.skip(f"unshare {' '.join(options)}: {done.stderr.decode().strip()}")


def marked(mark):
    """Pids of the living processes that have the mark in their environment."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if f"{MARK}={mark}".encode() in file.read():
                    found.append(int(pid))
        except OSError:
            continue
    return found


def wait_until(condition, timeout=TIMEOUT):
    """True as soon as condition() is; False if it is not after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def state_of(pid):
    """One letter, as in /proc/PID/stat; None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0].decode()
    except (FileNotFoundError, ProcessLookupError):
        return None


def reap(pid):
    """Waits for a child made by os.fork; its exit status, negative for a signal."""
    found = []

    def ended():
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            found.append(os.waitstatus_to_exitcode(status))
        return done

    if not wait_until(ended):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise AssertionError(f"child {pid} did not end in {TIMEOUT} s")
    return found[0]


def in_fork(function):
    """Runs function() in a child made by os.fork; its exit status (1 if it raised)."""
    pid = os.fork()
    if pid == 0:
        workers.exit_with(function)
    return reap(pid)


def join(*processes):
    """Joins multiprocessing processes, kills those that are stuck, and lists exit codes."""
    stuck = []
    for process in processes:
        process.join(TIMEOUT)
        if process.exitcode is None:
            stuck.append(process.name)
            process.kill()
            process.join()
    assert not stuck, f"{stuck} did not end in {TIMEOUT} s"
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.close()
    return codes


def segments(*makers):
    """Ids of the SysV segments in this IPC namespace, or of those that processes `makers` made."""
    with open("/proc/sysvipc/shm") as file:
        next(file)
        rows = [line.split() for line in file]
    return {int(row[1]) for row in rows if not makers or int(row[4]) in makers}


def memory(name):
    """Bytes of a line of /proc/meminfo, such as MemAvailable."""
    with open("/proc/meminfo") as file:
        for line in file:
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    raise KeyError(name)


def private_memory():
    """Address space of this process that is private and writable: what its allocators took.

    The resident part of it may also grow without use, when the kernel replaces small pages by huge ones.
    """
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmData"))


def needs_memory(nbytes):
    """Skips the test where less than twice `nbytes` is available."""
    if memory("MemAvailable") < 2 * nbytes:
        pytest.skip(f"needs {2 * nbytes >> 20} MiB of available memory")


def check_memory_message(message, nbytes):
    """Checks that a MemoryError has the bytes requested and available, the limit, and what can be done."""
    numbers = {int(re.sub("[_,]", "", word)) for word in re.findall(r"\d[\d_,]*\d|\d", message)}
    assert nbytes in numbers, message
    if nbytes > sys.maxsize:
        assert "does not fit the address space of 32 bit" in message
        return
    assert len(numbers) >= 2, message
    assert re.search(r"RAM|cgroup|commit limit|arena|ulimit|RLIMIT|address space", message), message
    assert re.search(r"free memory of other programs|memory\.max|SHAREDMEM_ARENA_SIZE|ulimit", message), (
        message
    )


def roundtrip(a, protocol=pickle.DEFAULT_PROTOCOL):
    return pickle.loads(pickle.dumps(a, protocol))


def address(a):
    """Address of the first element."""
    return a.__array_interface__["data"][0]


def same(a, b):
    """Whether two arrays have equal shape, dtype and bytes (of elements, not of padding)."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.names is not None:
        return all(same(a[name], b[name]) for name in a.dtype.names)
    return bool((significant_bytes(a) == significant_bytes(b)).all())


def significant_bytes(a):
    """The bytes of every number, without the padding that a long double has."""
    numbers = np.ascontiguousarray(a).reshape(-1)
    if a.dtype.char in "gG" and np.finfo("g").nmant == 63:  # x87: 80 bits
        return numbers.view("u1").reshape(-1, np.dtype("g").itemsize)[:, :10]
    return np.frombuffer(numbers.tobytes(), "u1")


def given_back(nbytes):
    """How much of so many bytes of shared memory the system gets back when they are free.

    Nothing, 0, on Windows: what an arena has committed stays so until its last process ends.
    """
    return 0 if sys.platform == "win32" else nbytes


def settle():
    """Collects garbage, so that what a test dropped is gone."""
    gc.collect()
