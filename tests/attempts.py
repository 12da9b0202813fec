"""Attempts to write to an array that must fail; importable by any worker.

Each is made in a forked child, which it may end. Windows has no fork; there ctypes makes an exception of it.
"""

import ctypes
import errno
import faulthandler
import mmap
import os
import signal
import sys

import numpy as np

if sys.platform == "win32":
    from ctypes import wintypes

    _kernel = ctypes.WinDLL("kernel32", use_last_error=True)
else:
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


def make_writable(page):
    """Asks the kernel to allow stores in a page."""
    if sys.platform == "win32":
        page_readwrite, before = 4, wintypes.DWORD()
        if not _kernel.VirtualProtect(
            ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), page_readwrite, ctypes.byref(before)
        ):
            raise ctypes.WinError(ctypes.get_last_error())
    elif _libc.mprotect(ctypes.c_void_p(page), mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")


def by_mprotect(a):
    """Makes the page writable, then writes."""
    make_writable(lowest_address(a) & -mmap.PAGESIZE)
    by_a_pointer(a)


def by_a_second_mapping(a):
    """mremap with an old size of 0 maps the page once more; that mapping is made writable."""
    page = lowest_address(a) & -mmap.PAGESIZE
    may_move = 1
    at = _libc.mremap(ctypes.c_void_p(page), 0, mmap.PAGESIZE, may_move)
    if at in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "mremap")
    make_writable(at)
    ctypes.memset(at + lowest_address(a) - page, 1, 1)


#: What comes of each attempt if the kernel stands behind the array.
REFUSED = {
    by_numpy: "ValueError",
    by_setting_the_flag: "ValueError",
    by_the_flag_of_a_view: "ValueError",
}
if sys.platform == "win32":
    REFUSED |= {by_a_pointer: "access violation", by_mprotect: "EINVAL"}
else:
    REFUSED |= {by_a_pointer: "SIGSEGV", by_mprotect: "EACCES", by_a_second_mapping: "EACCES"}


def text_of(attempt, a):
    """What attempt(a) raises: an error's number or its class; "done" if it does not."""
    faulthandler.disable()
    try:
        attempt(a)
    except OSError as error:
        if "access violation" in str(error):
            return "access violation"
        return errno.errorcode[error.errno]
    except BaseException as error:
        return type(error).__name__
    return "done"


def outcome(attempt, a):
    """What became of attempt(a): its text, or the name of the signal that ended it."""
    if sys.platform == "win32":
        return text_of(attempt, a)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.write(writing, text_of(attempt, a).encode())
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
