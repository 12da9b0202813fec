"""Attempts to write to an array that must fail, each in a forked child; importable by any worker."""

import ctypes
import errno
import faulthandler
import mmap
import os
import signal
import sys

import numpy as np

if sys.platform != "win32":
    import resource

    _libc = ctypes.CDLL(None, use_errno=True)
    _libc.mremap.restype = ctypes.c_void_p


def lowest_address(a):
    """Of the first byte of an array with elements, whatever the signs of its strides."""
    return a.ctypes.data + sum(min(0, (n - 1) * s) for n, s in zip(a.shape, a.strides, strict=True))


def by_numpy(a):
    a[(0,) * a.ndim] = 1


def by_setting_the_flag(a):
    a.setflags(write=True)


def by_the_flag_of_a_view(a):
    a[...].flags.writeable = True


def by_a_pointer(a):
    ctypes.memset(lowest_address(a), 1, 1)


def by_mprotect(a):
    """Makes the page writable, then writes."""
    page = lowest_address(a) & -mmap.PAGESIZE
    if _libc.mprotect(ctypes.c_void_p(page), mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")
    by_a_pointer(a)


def by_a_second_mapping(a):
    """mremap with an old size of 0 maps the page once more; that mapping is made writable."""
    page = lowest_address(a) & -mmap.PAGESIZE
    may_move = 1
    at = _libc.mremap(ctypes.c_void_p(page), 0, mmap.PAGESIZE, may_move)
    if at in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "mremap")
    if _libc.mprotect(ctypes.c_void_p(at), mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")
    ctypes.memset(at + lowest_address(a) - page, 1, 1)


#: What comes of each attempt if the kernel stands behind the array.
REFUSED = {
    by_numpy: "ValueError",
    by_setting_the_flag: "ValueError",
    by_the_flag_of_a_view: "ValueError",
    by_a_pointer: "SIGSEGV",
    by_mprotect: "EACCES",
    by_a_second_mapping: "EACCES",
}


def outcome(attempt, a):
    """What became of attempt(a) in a forked child: "done", a signal, an error's number or its class."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        text = "done"
        try:
            faulthandler.disable()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            attempt(a)
        except OSError as error:
            text = errno.errorcode[error.errno]
        except BaseException as error:
            text = type(error).__name__
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as said:
        text = said.read()
    status = os.waitpid(pid, 0)[1]
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else text


def outcomes(a):
    """Of all attempts, by name."""
    return {attempt.__name__: outcome(attempt, a) for attempt in REFUSED}


EXPECTED = {attempt.__name__: result for attempt, result in REFUSED.items()}


def try_to_write(a):
    """Attempts on an array that has arrived, and on a view of it that is passed on within this process."""
    import pickle

    view = np.atleast_1d(a)[::-1]
    return outcomes(a), outcomes(pickle.loads(pickle.dumps(view))), a.flags.writeable


def send_on(a):
    """A view of the array, sent back."""
    return a[::-1]


def maps():
    """Lines of this process's memory map."""
    with open("/proc/self/maps") as file:
        return len(file.readlines())
