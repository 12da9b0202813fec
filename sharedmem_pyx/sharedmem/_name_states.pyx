"""The states of names of arrays, and how they are reported."""

import errno
import math

cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport uint64_t
from libcpp cimport bool
from libcpp.string_view cimport string_view
from libcpp.vector cimport vector

from sharedmem._name_arrays cimport read_description, shape_of, text_of
from sharedmem.libsharedmem.handle cimport handle
from sharedmem.libsharedmem.home cimport release
from sharedmem.libsharedmem.names cimport (
    all_names, find_name, max_name_bytes, name_found, name_report, name_space, name_status,
    wait_for_name, wait_for_names)

from sharedmem._naming import NameInfo, kind_of

cdef enum:
    full_look = 9                   # the round of a wait in which all processes are checked


cdef string_view read_name(object name) except *:
    """The bytes of a name, which live as long as the name object."""
    cdef Py_ssize_t size = 0
    cdef const char* data
    if not isinstance(name, str):
        raise TypeError(f"a name is a str, not {type(name).__name__}")
    try:
        data = PyUnicode_AsUTF8AndSize(name, &size)
    except UnicodeEncodeError as error:     # a half of a surrogate pair, such as "\ud800"
        raise ValueError(f"a name must be text that UTF-8 can encode; character {error.start} of {name!a} "
                         "is none: it is one half of a surrogate pair") from None
    if size == 0:
        raise ValueError("a name must not be empty")
    if size > max_name_bytes:
        raise ValueError(f"a name has at most {max_name_bytes} bytes of UTF-8, this one has {size}")
    if "\0" in name:
        raise ValueError("a name must not contain a null character")
    return string_view(data, size)


cdef name_found look(string_view name, name_space among) except *:
    cdef name_found found
    with nogil:
        found = find_name(name, among)
    return found


cdef bint has_ended(name_found* found) except -1:
    """Whether a building process has died, so that the building has ended; checks that process once."""
    cdef bool ended
    with nogil:
        ended = wait_for_name(found.at, full_look, 0)
    return ended


cdef int sleep(name_found* found, name_space among, unsigned round, uint64_t ns) except -1:
    """One slice of waiting for a name."""
    with nogil:
        if found.what == name_status.building:
            wait_for_name(found.at, round, ns)
        else:
            wait_for_names(ns, among)
    PyErr_CheckSignals()
    return 0


cdef str since(uint64_t age_ns):
    return "" if age_ns == 0 else f" since {age_ns / 1e9:.1f} s"


cdef str state_text(const name_found* found):
    cdef handle h
    if found.what == name_status.building:
        return f"is being built by process {found.pid}{since(found.age_ns)}"
    text = text_of(found)
    descr = read_description(text, &h)
    kind = kind_of(descr)
    if kind != "array":
        return f"is that of a sharedmem.{kind}{since(found.age_ns)}"
    return f"is bound to {descr} {shape_of(&h)}{since(found.age_ns)}"


cdef object exists(object name, name_found* found):
    try:
        said = state_text(found)
    finally:
        if found.what == name_status.ready:
            release(found.block.ref)
    return FileExistsError(errno.EEXIST, f"the name {said}", name)


def names():
    """The names that processes of this user have created.

    Returns
    -------
    list of NameInfo
        Names of the same effective user, IPC namespace and SHAREDMEM_NAMESPACE. Each entry is correct by
        itself, but the list is not a consistent snapshot, because other processes go on meanwhile.

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
    cdef name_space among = name_space.now()
    with nogil:
        reports = all_names(among)
    return name_list(reports)


cdef list name_list(vector[name_report]& reports):
    cdef size_t i
    return [info_of(<bytes>reports[i].name, <int>reports[i].what, <bytes>reports[i].text, reports[i].pid,
                    reports[i].age_ns / 1e9, tuple(reports[i].holders))
            for i in range(reports.size())]


def info_of(bytes name, int what, bytes text, pid, seconds, holders):
    """The report on a name, from what the table of names says.

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
