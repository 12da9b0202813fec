"""Creating and removing names of arrays: `create` and `unlink`."""

import errno

cimport numpy as cnp
from libcpp cimport bool
from libcpp.string_view cimport string_view

from sharedmem._name_arrays cimport bind, check_dtype
from sharedmem._name_states cimport exists, has_ended, look, read_name, state_text
from sharedmem._new_array cimport make, plan, plan_new, read_dtype, zero
from sharedmem.libsharedmem.arena cimport arena, pages
from sharedmem.libsharedmem.home cimport release
from sharedmem.libsharedmem.names cimport (
    claim_name, give_up_name, name_arena, name_found, name_space, name_status, name_ticket, place_in,
    vacate_name)

cnp.import_array()


def create(name, shape, dtype=float, order="C"):
    """New array of zeros in shared memory, under a name by which other processes find it.

    The name exists as long as the array: until neither a process nor a message has it any more. If others
    must not see the array before it is filled, use `get_or_create`.

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
        The name is in use or is being built: the message says since when.
    MemoryError
        There is not enough memory, or all 4096 names are in use.
    TypeError, ValueError
        `name` is not a str, is empty or too long; the dtype contains Python objects, or fields whose
        description needs more than 1.4 kB; otherwise as `zeros`.
    OSError
        ENOSYS or EPERM: System V memory, which names need, is not available; arrays that are sent do not
        need it. Otherwise as `zeros`.

    See Also
    --------
    attach : Get the array of a name.
    get_or_create : Get the array of a name, built by one process if it does not exist.

    Notes
    -----
    A name is visible to processes of the same effective user, IPC namespace and value of the environment
    variable SHAREDMEM_NAMESPACE, whether they are related or not. Any thread may call this function. If
    several processes create one name at the same time, one of them succeeds.

    Examples
    --------
    >>> a = sharedmem.create("create-example", 3)
    >>> a[:] = 1, 2, 3
    >>> sharedmem.attach("create-example")
    SharedArray([1., 2., 3.])
    """
    cdef plan p
    cdef string_view asked = read_name(name)
    cdef name_space among = name_space.now()
    cdef cnp.dtype descr = plan_new(&p, shape, read_dtype(dtype), order)
    cdef name_found found
    cdef name_ticket mine
    cdef arena* host
    cdef arena* before
    cdef bool claimed = False
    check_dtype(descr)
    while not claimed:
        found = look(asked, among)
        if found.what == name_status.building and has_ended(&found):
            continue
        if found.what == name_status.ready or found.what == name_status.building:
            raise exists(name, &found)
        if found.what == name_status.failed:
            vacate_name(found.at)
            continue
        with nogil:
            claimed = claim_name(asked, mine, among)
    try:
        host = name_arena(mine)
        before = place_in(host)
        try:
            a = make(&p, descr, pages.as_needed, zero, NULL, NULL, None)
        finally:
            place_in(before)
        return bind(&mine, host, a, True)
    except BaseException:
        give_up_name(mine)
        raise


def unlink(name, *, missing_ok=False):
    """Remove a name. Processes that have the array keep it.

    Parameters
    ----------
    name : str
        The name that was given to `create`.
    missing_ok : bool, optional
        If true, a name that does not exist is not an error.

    Raises
    ------
    FileNotFoundError
        The name does not exist, and `missing_ok` is false.
    OSError
        EBUSY: the array is being built, which only ends with the building process; after that
        process has ended, another waiting process builds. Otherwise as `create`.
    TypeError, ValueError
        `name` is not a str, is empty or too long.

    Examples
    --------
    >>> a = sharedmem.create("unlink-example", 3)
    >>> sharedmem.unlink("unlink-example")
    >>> b = sharedmem.create("unlink-example", 5)
    >>> len(a), len(b)
    (3, 5)
    """
    cdef string_view asked = read_name(name)
    cdef name_space among = name_space.now()
    cdef name_found found
    while True:
        found = look(asked, among)
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
