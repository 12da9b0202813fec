"""`sharedmem.place`: which processes can use each other's shared memory."""

from __future__ import annotations

import os
import sys

from sharedmem._startup import import_lock
from sharedmem.arena import where_home


def _namespace(kind: str) -> str:
    """The number of this process's namespace of that kind; empty if the system does not report it."""
    try:
        return f"{os.stat(f'/proc/self/ns/{kind}').st_ino:x}"
    except OSError:
        return ""


def place() -> str:
    """Where this process is: equal in two processes only if each can use the other's shared memory.

    For programs that send arrays over their own connections, by MPI, sockets or a job system: send handles
    if both ends have the same place, and values (`pickle_by_value`) if they do not. A host name or an
    address is not sufficient: containers on one host may be separate, and so are different users.

    Returns
    -------
    str
        Only to be compared with the places of other processes. It consists of the boot of the
        kernel, the IPC and user namespaces, the effective user and the version of the memory's layout; where
        the system has no System V memory, of the pid namespace, too. On Windows it is the machine and the
        session, the user, the integrity level and the app container.

    Raises
    ------
    OSError
        This process has no arena yet, and the system refused to make one.

    See Also
    --------
    pickle_by_value : Pickles the data of arrays instead of handles.

    Notes
    -----
    Equal places mean that the system allows it. Attaching memory may still fail in a process that has
    attached 128 arenas already, or has no address space left. Places may also differ although memory
    could be shared: two user namespaces may give a user the same rights, and a process that had to fall
    back on memfds can use System V memory of others all the same.

    It is determined at each call, in a few microseconds, because a process may change its user or namespaces.
    Any thread may call it.

    Examples
    --------
    >>> import concurrent.futures
    >>> with concurrent.futures.ProcessPoolExecutor(1) as executor:
    ...     executor.submit(sharedmem.place).result() == sharedmem.place()
    True
    """
    version, host, is_memfd = where_home()
    if sys.platform == "win32":
        with import_lock:
            from sharedmem._windows import place_parts
        return ":".join([f"sharedmem-{version}", f"{host:x}", *place_parts()])
    parts = [
        f"sharedmem-{version}",
        f"{host:x}",
        _namespace("ipc"),
        _namespace("user"),
        str(os.geteuid()),
    ]
    if is_memfd:
        parts.append(_namespace("pid"))
    return ":".join(parts)
