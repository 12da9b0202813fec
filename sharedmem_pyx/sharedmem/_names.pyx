"""Arrays by name, for processes that know nothing of each other; and what is to be made once on a host."""

import errno
import logging
import math
import os
import threading
import time

import numpy as np

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport uint32_t, uint64_t
from libcpp cimport bool
from libcpp.string_view cimport string_view
from libcpp.vector cimport vector

from sharedmem._handles cimport dtype_text, encode_array, find_dtype, in_one_block
from sharedmem._new_array cimport make, plan, plan_new, read_dtype, zero
from sharedmem.array cimport adopt
from sharedmem.libsharedmem.arena cimport allocation, arena, claim, pages
from sharedmem.libsharedmem.handle cimport byte, bytes_in, decode, fits, handle
from sharedmem.libsharedmem.home cimport arena_of, release
from sharedmem.libsharedmem.names cimport (
    all_names, bind_name, claim_name, fail_name, find_name, give_up_name, max_description_bytes,
    max_name_bytes, name_found, name_report, name_status, name_ticket, place_in, vacate_name,
    wait_for_name, wait_for_names)

from sharedmem._copying import array as copy_into
from sharedmem._naming import BuildError, NameInfo, describe_dtype, failure_text, parse_dtype
from sharedmem._read_only import readonly as protect
from sharedmem.errors import refuse_objects


cdef extern from "<numpy/arrayobject.h>":
    bint PyDataType_REFCHK(cnp.dtype)


cnp.import_array()

cdef enum:
    first_notice = 10               # seconds of waiting after which the log says so
    slice_ns = 100000000            # of waiting, after which signals are heard
    failure_ns = 250000000          # for which a failure stays for those who waited for it
    full_look = 9                   # the round of a wait in which all processes are looked at

here = threading.local()            # what this thread is building: names, with the process that it is


# -- arguments

cdef string_view read_name(object name) except *:
    """The bytes of a name, which live as long as it does."""
    cdef Py_ssize_t size = 0
    cdef const char* data
    if not isinstance(name, str):
        raise TypeError(f"a name is a str, not {type(name).__name__}")
    data = PyUnicode_AsUTF8AndSize(name, &size)
    if size == 0:
        raise ValueError("a name must not be empty")
    if size > max_name_bytes:
        raise ValueError(f"a name has at most {max_name_bytes} bytes of UTF-8, this one has {size}")
    if "\0" in name:
        raise ValueError("a name must not contain a null character")
    return string_view(data, size)


cdef object read_deadline(object timeout):
    """When waiting ends, by time.monotonic(); None: never."""
    if timeout is None:
        return None
    seconds = float(timeout)
    if math.isnan(seconds) or seconds < 0:
        raise ValueError(f"timeout must be a number of seconds, 0 or more, or None, not {timeout!r}")
    return time.monotonic() + seconds


cdef uint64_t time_left(object deadline) except? 0:
    """Nanoseconds that a slice of waiting may take; 0: none."""
    if deadline is None:
        return slice_ns
    left = deadline - time.monotonic()
    return 0 if left <= 0 else min(<uint64_t>slice_ns, <uint64_t>(min(left, 1.0) * 1e9) + 1)


# -- descriptions: two bytes of length, a handle, and what a .npy header says of the dtype if the handle
#    does not

cdef object describe(cnp.ndarray a, const allocation* found):
    cdef cnp.dtype descr = a.descr
    cdef claim c
    text = dtype_text(descr)
    c = found.ref.home.share(found.ref, False)
    state = encode_array(a, found, descr, text, c)
    return len(state).to_bytes(2, "little") + state + (b"" if text is not None else describe_dtype(descr))


cdef int check_dtype(cnp.dtype descr) except -1:
    """Before anything is claimed: that the dtype can be described."""
    if PyDataType_REFCHK(descr):
        refuse_objects(descr)
    if dtype_text(descr) is None:
        text = describe_dtype(descr)
        room = max_description_bytes - 256      # what a handle of a few axes takes
        if len(text) > room:
            raise ValueError(f"the description of the dtype has {len(text)} bytes, more than the {room} "
                             "that there is room for beside a name: it has too many fields")
    return 0


cdef cnp.dtype read_description(bytes text, handle* h):
    """The handle, whose dtype text lives as long as `text`, and the dtype."""
    cdef size_t size = PyBytes_GET_SIZE(text)
    cdef const char* data = PyBytes_AS_STRING(text)
    cdef size_t length
    if size < 2:
        raise ValueError("the description of a named array makes no sense")
    length = <unsigned char>data[0] | <size_t>(<unsigned char>data[1]) << 8
    if length > size - 2:
        raise ValueError("the description of a named array makes no sense")
    h[0] = decode(bytes_in(<byte*>data + 2, length))
    return find_dtype(h, None if length == size - 2 else parse_dtype(text[2 + length:]))


cdef bytes text_of(const name_found* found):
    return PyBytes_FromStringAndSize(found.text.data(), found.text.size())


cdef tuple shape_of(const handle* h):
    return tuple([h.shape.shape[i] for i in range(h.shape.ndim)])


cdef object array_of(name_found* found, bint may_write):
    """The array of a name that is ready; takes the block's reference over."""
    return array_over(&found.block, text_of(found), may_write)


cdef object array_over(allocation* block, bytes text, bint may_write):
    """The array of that description; takes the block's reference over."""
    cdef handle h
    cdef cnp.dtype descr
    cdef cnp.npy_intp shape[64]
    cdef cnp.npy_intp strides[64]
    cdef int i
    try:
        descr = read_description(text, &h)
        if not fits(h.shape, block.bytes):
            raise ValueError("the description of a named array makes no sense: "
                             "it does not lie within its block")
    except BaseException:
        release(block.ref)
        raise
    for i in range(h.shape.ndim):
        shape[i] = h.shape.shape[i]
        strides[i] = h.shape.strides[i]
    a = adopt(block, NULL, descr, h.shape.ndim, shape, strides, <char*>block.data + h.shape.offset,
              cnp.NPY_ARRAY_ALIGNED | cnp.NPY_ARRAY_WRITEABLE, None)
    return a if may_write else protect(a)


# -- what is said of a name

cdef str since(uint64_t age_ns):
    return "" if age_ns == 0 else f" since {age_ns / 1e9:.1f} s"


cdef str state_text(const name_found* found):
    cdef handle h
    if found.what == name_status.building:
        return f"is being built by process {found.pid}{since(found.age_ns)}"
    text = text_of(found)
    descr = read_description(text, &h)
    return f"is bound to {descr} {shape_of(&h)}{since(found.age_ns)}"


cdef name_found look(string_view name) except *:
    cdef name_found found
    with nogil:
        found = find_name(name)
    return found


cdef object exists(object name, name_found* found):
    try:
        said = state_text(found)
    finally:
        if found.what == name_status.ready:
            release(found.block.ref)
    return FileExistsError(errno.EEXIST, f"the name {said}", name)


# -- the functions

def create(name, shape, dtype=float, order="C"):
    """New array of zeros in shared memory, under a name by which other processes find it.

    The name lives as long as the array: until no process has it any more, nor a message. Whoever must not
    see the zeros before they are filled uses `get_or_create`.

    Parameters
    ----------
    name : str
        1 to 255 bytes of UTF-8; any characters but the null character.
    shape : int or tuple of int
        Elements along each axis.
    dtype : dtype_like, optional
        Fixed-size type without Python objects.
    order : {"C", "F"}, optional
        Whether the last or the first axis is contiguous.

    Returns
    -------
    SharedArray
        All zero.

    Raises
    ------
    FileExistsError
        The name stands for an array, or is being built: the message says since when.
    MemoryError
        No room, or all 4096 names are in use.
    TypeError, ValueError
        `name` is no str, is empty or too long; the dtype has Python objects, or fields that cannot be
        described in 1.4 kB; otherwise as `zeros`.
    OSError
        ENOSYS or EPERM: there is no System V memory here, in which names lie; arrays that are sent do not
        need it. Otherwise as `zeros`.

    See Also
    --------
    attach : the array of a name.
    get_or_create : the array of a name, made by one process if there is none.

    Notes
    -----
    Names are seen by processes of the same effective user, IPC namespace and value of the environment
    variable SHAREDMEM_NAMESPACE, whatever their parents. Any thread may call it; of several processes
    that create one name at once, one succeeds.

    Examples
    --------
    >>> a = sharedmem.create("create-example", 3)
    >>> a[:] = 1, 2, 3
    >>> sharedmem.attach("create-example")
    SharedArray([1., 2., 3.])
    """
    cdef plan p
    cdef string_view asked = read_name(name)
    cdef cnp.dtype descr = plan_new(&p, shape, read_dtype(dtype), order)
    cdef name_found found
    cdef name_ticket mine
    cdef arena* before
    cdef bool claimed = False
    check_dtype(descr)
    while not claimed:
        found = look(asked)
        if found.what == name_status.building and has_ended(&found):
            continue
        if found.what == name_status.ready or found.what == name_status.building:
            raise exists(name, &found)
        if found.what == name_status.failed:
            vacate_name(found.at)
            continue
        with nogil:
            claimed = claim_name(asked, mine)
    try:
        before = place_in(mine.host)
        try:
            a = make(&p, descr, pages.as_needed, zero, NULL, NULL, None)
        finally:
            place_in(before)
        return bind(&mine, a, True)
    except BaseException:
        give_up_name(mine)
        raise


cdef object bind(const name_ticket* mine, cnp.ndarray a, bint may_write):
    """Binds the name to an array of the arena of names; what others will get, too."""
    cdef allocation found = mine.host.find(cnp.PyArray_DATA(a))
    cdef bytes text = describe(a, &found)
    if len(text) > max_description_bytes:
        raise ValueError(f"the description of the array has {len(text)} bytes, more than the "
                         f"{max_description_bytes} that there is room for beside a name")
    found.ref = found.ref.home.duplicate(found.ref)
    made = array_over(&found, text, may_write)
    bind_name(mine[0], mine.host.find(cnp.PyArray_DATA(a)).ref,
              string_view(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)))
    return made


def attach(name, *, readonly=False, timeout=0):
    """The array that a name stands for.

    Parameters
    ----------
    name : str
        As it was created.
    readonly : bool, optional
        Whether the array can only be read, as those of `sharedmem.readonly`.
    timeout : float or None, optional
        Seconds to wait for the name; None: as long as it takes. By default there is no waiting.

    Returns
    -------
    SharedArray
        The same memory, with shape, dtype and order of what was named.

    Raises
    ------
    FileNotFoundError
        There is no such name, or not in time; the message says whether it is being built, by which
        process and since when.
    TypeError, ValueError
        `name` is no str, is empty or too long; `timeout` is no number of seconds.
    OSError
        As `create`.

    Notes
    -----
    Any thread may call it. The array keeps its memory, and with it the name, whoever made it.

    Examples
    --------
    >>> a = sharedmem.create("attach-example", (2, 2), "i4")
    >>> b = sharedmem.attach("attach-example")
    >>> b[0] = 7
    >>> a
    SharedArray([[7, 7],
                 [0, 0]], dtype=int32)
    """
    cdef string_view asked = read_name(name)
    cdef name_found found
    cdef unsigned round = 0
    cdef uint64_t left
    cdef bint may_write = not readonly
    deadline = None
    if timeout is None or timeout != 0:
        deadline = read_deadline(timeout)
    while True:
        found = look(asked)
        if found.what == name_status.ready:
            return array_of(&found, may_write)
        left = 0 if timeout is not None and deadline is None else time_left(deadline)
        if left == 0:
            said = "there is no array of that name"
            if found.what == name_status.building:
                if has_ended(&found):
                    continue
                said += f"; it {state_text(&found)}"
            raise FileNotFoundError(errno.ENOENT, said, name)
        sleep(&found, round, left)
        round += 1


cdef bint has_ended(name_found* found) except -1:
    """Whether a building has come to its end, since its process has died: looks once whether that lives."""
    cdef bool ended
    with nogil:
        ended = wait_for_name(found.at, full_look, 0)
    return ended


cdef int sleep(name_found* found, unsigned round, uint64_t ns) except -1:
    """One slice of waiting for a name."""
    with nogil:
        if found.what == name_status.building:
            wait_for_name(found.at, round, ns)
        else:
            wait_for_names(ns)
    PyErr_CheckSignals()
    return 0


def unlink(name, *, missing_ok=False):
    """Take a name away. Arrays stay with those who have them.

    Parameters
    ----------
    name : str
        As it was created.
    missing_ok : bool, optional
        Whether it is no error if there is no such name.

    Raises
    ------
    FileNotFoundError
        There is no such name, and `missing_ok` is false.
    OSError
        EBUSY: it is being built, which only the process that builds can end; if that process is ended,
        another one that waits builds. Otherwise as `create`.
    TypeError, ValueError
        `name` is no str, is empty or too long.

    Examples
    --------
    >>> a = sharedmem.create("unlink-example", 3)
    >>> sharedmem.unlink("unlink-example")
    >>> b = sharedmem.create("unlink-example", 5)
    >>> len(a), len(b)
    (3, 5)
    """
    cdef string_view asked = read_name(name)
    cdef name_found found
    while True:
        found = look(asked)
        if found.what == name_status.none:
            if missing_ok:
                return
            raise FileNotFoundError(errno.ENOENT, "there is no array of that name", name)
        if found.what == name_status.building:
            if has_ended(&found):
                continue
            raise OSError(errno.EBUSY, f"the name {state_text(&found)}; when that process ends another "
                          "one may build", name)
        done = vacate_name(found.at)
        if found.what == name_status.ready:
            release(found.block.ref)
        if done:
            return


def names():
    """The names that processes of this user have made.

    Returns
    -------
    list of NameInfo
        Of the same effective user, IPC namespace and SHAREDMEM_NAMESPACE. Each is right by itself; others
        go on meanwhile.

    Raises
    ------
    OSError
        As `create`.

    Examples
    --------
    >>> a = sharedmem.create("names-example", (2, 3))
    >>> [(each.name, each.state, each.shape) for each in sharedmem.names()]
    [('names-example', 'ready', (2, 3))]
    """
    cdef vector[name_report] reports
    with nogil:
        reports = all_names()
    return name_list(reports)


cdef list name_list(vector[name_report]& reports):
    cdef size_t i
    return [info_of(<bytes>reports[i].name, <int>reports[i].what, <bytes>reports[i].text, reports[i].pid,
                    reports[i].age_ns / 1e9, tuple(reports[i].holders))
            for i in range(reports.size())]


def info_of(bytes name, int what, bytes text, pid, seconds, holders):
    """What is told of a name, from what the table of names says.

    Parameters
    ----------
    name, text : bytes
        The name; the description of its array, if it has one.
    what : int
        A `name_status`.
    pid, seconds, holders
        As in `NameInfo`.

    Returns
    -------
    NameInfo
    """
    cdef handle h
    cdef cnp.dtype descr = None
    shape = None
    nbytes = 0
    state = "building"
    if what == <int>name_status.ready:
        state = "ready"
        descr = read_description(text, &h)
        shape = shape_of(&h)
        nbytes = math.prod(shape) * cnp.PyDataType_ELSIZE(descr)
    elif what == <int>name_status.failed:
        state = "failed"
    return NameInfo(name.decode("utf-8", "replace"), state, shape, descr, nbytes, pid, seconds, holders)


def get_or_create(name, build, *, readonly=True, timeout=None):
    """The array of a name; if there is none, one process of the host makes it and all get it.

    Exactly one caller, of all processes and threads, calls `build`; the others sleep until it is done. It
    ends by success, by an exception, which reaches all who wait, or by the death of the process, whose
    place another one takes; never by a time limit.

    Parameters
    ----------
    name : str
        As for `create`. If it may stand for another thing later, let it tell which: ``"model-v3"``.
    build : callable
        Without arguments; returns an array, or anything `numpy.asarray` takes. Arrays that its thread
        makes by this library meanwhile lie where named arrays lie, so that one of these is returned
        without a copy; any other, and one that is read-only or not contiguous, is copied once.
    readonly : bool, optional
        Whether the array can only be read, as those of `sharedmem.readonly`. What all processes of a host
        have is seldom meant to be changed by one: ``table -= table.mean()`` in 64 workers.
    timeout : float or None, optional
        Seconds to wait for others that build; None: as long as it takes. It does not limit this process's
        own `build`.

    Returns
    -------
    SharedArray
        The same memory in all processes.

    Raises
    ------
    Exception
        Whatever `build` raises, in the process that called it.
    BuildError
        Another one that built raised an exception while this one waited; a later call builds anew.
    TimeoutError
        Others are still building; the message says which process, and for how long.
    RuntimeError
        `build` asks for the name that it builds; or a forked child returned from its parent's `build`.
    TypeError, ValueError
        `build` cannot be called, or returns Python objects; otherwise as `create`.
    MemoryError, OSError
        As `create`.

    See Also
    --------
    attach : the array of a name, if there is one.
    readonly : what kind of array that is.

    Notes
    -----
    KeyboardInterrupt and SystemExit in `build` reach nobody else: one who waits builds then. A process that
    dies while it builds is replaced within a quarter of a second; one that is alive and stuck is not, and
    ending it helps. Who waits logs, at level INFO of the logger "sharedmem", after 10 seconds and then at
    doubled times, what is waited for.

    The array lives as long as any process has it: nothing keeps it when all workers end at once. The memory
    is charged to the builder's cgroup.

    Examples
    --------
    >>> table = sharedmem.get_or_create("table-example", lambda: sharedmem.full(3, 7.0))
    >>> table
    SharedArray([7., 7., 7.])
    >>> table.flags.writeable
    False
    """
    cdef string_view asked = read_name(name)
    cdef name_found found
    cdef name_ticket mine
    cdef bint may_write = not readonly
    cdef bool claimed
    cdef object waiting = None
    if not callable(build):
        raise TypeError(f"build must be callable, not {type(build).__name__}")
    while True:
        found = look(asked)
        if found.what == name_status.ready:
            return array_of(&found, may_write)
        if found.what == name_status.building:
            if waiting is None:
                refuse_recursion(name)
                waiting = Waiting(name, timeout)
            (<Waiting>waiting).sleep(&found)
        elif found.what == name_status.failed:
            if waiting is not None and (<Waiting>waiting).waited_for(&found):
                raise BuildError(f"building {name!r} failed in process {found.pid}: "
                                 f"{text_of(&found).decode('utf-8', 'replace')}", name, found.pid)
            if 0 < found.age_ns < failure_ns:
                time.sleep((failure_ns - found.age_ns) * 1e-9)
                continue
            vacate_name(found.at)
        else:
            with nogil:
                claimed = claim_name(asked, mine)
            if claimed:
                return build_now(&mine, name, build, may_write)


cdef class Waiting:
    """Waiting for others that build."""
    cdef object name, deadline, began, next_notice
    cdef uint64_t use
    cdef uint32_t entry
    cdef unsigned round

    def __init__(self, name, timeout):
        self.name = name
        self.deadline = read_deadline(timeout)
        self.began = time.monotonic()
        self.next_notice = first_notice

    cdef bint waited_for(self, name_found* found) noexcept:
        return self.round > 0 and found.at.use() == self.use and found.at.entry == self.entry

    cdef int sleep(self, name_found* found) except -1:
        cdef uint64_t ns = time_left(self.deadline)
        self.use = found.at.use()
        self.entry = found.at.entry
        if ns == 0:
            spent = f"{found.age_ns / 1e9:.1f} s" if found.age_ns != 0 else "a time that cannot be told"
            raise TimeoutError(errno.ETIMEDOUT, f"the name has been built by process {found.pid} for {spent}",
                               self.name)
        sleep(found, self.round, ns)
        self.round += 1
        waited = time.monotonic() - self.began
        if waited >= self.next_notice:
            self.next_notice *= 2
            logging.getLogger("sharedmem").info(
                "waiting for %r, which process %d has been building for %.0f s", self.name, found.pid,
                found.age_ns / 1e9)
        return 0


cdef object building_here():
    """Names that this thread is building, each with the process that it was then."""
    try:
        return here.building
    except AttributeError:
        here.building = set()
        return here.building


cdef int refuse_recursion(object name) except -1:
    if (os.getpid(), name) in building_here():
        raise RuntimeError(f"the function that builds {name!r} asks for {name!r}: it would wait for itself")
    return 0


cdef object build_now(const name_ticket* mine, object name, object build, bint may_write):
    """Calls `build` and ends the building, whatever comes."""
    cdef arena* before
    cdef bytes text
    cdef set building = building_here()
    process = os.getpid()
    building.add((process, name))
    try:
        before = place_in(mine.host)
        try:
            a = contiguous_in(mine.host, build())
        finally:
            place_in(before)
        if os.getpid() != process:
            raise RuntimeError(f"a forked child returned from the function by which process {process} builds "
                               f"{name!r}; let it end by os._exit")
        return bind(mine, a, may_write)
    except Exception as error:
        try:
            text = failure_text(error, max_description_bytes)
        except BaseException:       # there is no text: who waits builds, as if this process had been stopped
            give_up_name(mine[0])
            raise
        fail_name(mine[0], string_view(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)))
        raise
    except BaseException:
        give_up_name(mine[0])
        raise
    finally:
        building.discard((process, name))


cdef object contiguous_in(arena* where, object made):
    """An array that lies in the arena, is writable and has no gaps, with the items of `made`.

    What came through a mapping that cannot write may be what others were promised to have read-only.
    """
    cdef allocation found
    cdef cnp.ndarray a = made if isinstance(made, np.ndarray) else np.asarray(made)
    check_dtype(a.descr)
    if (cnp.PyArray_SIZE(a) > 0 and cnp.PyArray_ITEMSIZE(a) > 0 and cnp.PyArray_ISWRITEABLE(a)
            and (cnp.PyArray_IS_C_CONTIGUOUS(a) or cnp.PyArray_IS_F_CONTIGUOUS(a))
            and arena_of(cnp.PyArray_DATA(a)) == where and in_one_block(a, where, &found)):
        return a
    return copy_into(np.asarray(a), order="A")
