"""Shared arrays between the actors of a Ray program: writable, and without a copy.

Ray's own store is left alone: arguments, results and ``ray.put`` carry values, which are read-only where they
arrive. State that several actors and the driver read and *write* goes by a tensor transport (Ray Direct
Transport), which ``sharedmem.ray.register()`` adds. Call it before the actors are created::

    @ray.remote
    class Simulation:
        def __init__(self):
            self.state = sharedmem.zeros((1000, 1000))

        @ray.method(tensor_transport="sharedmem")
        def share(self):
            return self.state

A driver shares an array by ``ref = sharedmem.ray.put(a)``. Each process that gets the reference has the same
memory; a process that cannot use it, for instance on another node, gets a copy of the values.

Tested with Ray 2.60.0. Ray calls its transports *alpha*: where a version does not have what this module
needs, there is one RuntimeWarning, and values travel.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from sharedmem._startup import import_lock

if TYPE_CHECKING:
    from ray import ObjectRef

__all__ = ["put", "register"]

_warned: set[str] = set()


def _need_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise ImportError(
            "sharedmem.ray needs Ray, which is not installed: pip install 'numpy-sharedmem[ray]'", name="ray"
        ) from None
    return ray


def _warn_once(text: str) -> None:
    if text not in _warned:
        _warned.add(text)
        warnings.warn(text, RuntimeWarning, stacklevel=3)


def register() -> bool:
    """Make ``tensor_transport="sharedmem"`` known to Ray, in this process and the actors that it creates.

    It has to be called before a class with ``@ray.method(tensor_transport="sharedmem")`` is defined;
    ``ray.init`` may come earlier or later. An actor that Ray may restart (``max_restarts``) calls it in its
    ``__init__``, too: Ray makes the transport known to an actor's first process only.

    Returns
    -------
    bool
        False: this version of Ray lacks what is needed, and a RuntimeWarning was given. `put` stores values
        then, and Ray refuses the name of the transport.

    Raises
    ------
    ImportError
        Ray is not installed.

    Warns
    -----
    RuntimeWarning
        This version of Ray does not have what is needed. Nothing was changed.

    See Also
    --------
    put : Stores an array of this process.

    Notes
    -----
    Calling it again does nothing. It may be called by any thread. Nothing else of Ray changes: what is not
    sent by this transport goes through Ray's store as usual.
    """
    ray = _need_ray()
    with import_lock:
        from sharedmem._integrations.ray_hooks import missing_hooks
    missing = missing_hooks()
    if missing is not None:
        _warn_once(
            f"sharedmem.ray does not know Ray {ray.__version__}, which sends values as if sharedmem were not "
            f"there: {missing}"
        )
        return False
    with import_lock:
        from sharedmem._engines.ray_transport import install
    install()
    return True


def put(value: Any) -> ObjectRef[Any]:
    """Store an object with Ray, but leave its shared arrays where they are.

    In contrast to ``ray.put``, arrays of this library in the object are not copied: a process that gets the
    object, as an argument of an actor or by ``ray.get``, has the same memory and may write to it.

    Parameters
    ----------
    value : object
        An array, or any object that holds arrays and can be pickled. Everything in it but shared arrays is
        stored by value. If the value is itself an ordinary ndarray, it is copied into shared memory.

    Returns
    -------
    ray.ObjectRef
        This process keeps the shared arrays until Ray says that no reference is left.

    Raises
    ------
    ImportError
        Ray is not installed.
    TypeError
        The value cannot be pickled, or is a reference already.

    Warns
    -----
    RuntimeWarning
        Values were stored, because this process cannot store handles: this version of Ray is not supported,
        or the process is a client of ``ray://``, an actor without ``enable_tensor_transport=True``, or a
        driver in another `sharedmem.place` than the workers of its node.

    See Also
    --------
    register : Has the results of actors' methods travel this way.

    Notes
    -----
    Where shared memory has no room for an ordinary ndarray, its values are stored, as ``ray.put`` does.

    A reference goes to actors whose class has ``@ray.remote(enable_tensor_transport=True)``, or a method with
    a tensor transport, as a positional argument. Tasks get it inside a list, and call ``ray.get``.
    """
    ray = _need_ray()
    if not register():
        return ray.put(value)
    with import_lock:
        from sharedmem._engines.ray_transport import NAME
        from sharedmem._engines.ray_values import why_values
        from sharedmem._integrations.ray_hooks import is_held_by_transport
    reason = why_values()
    if reason is not None:
        _warn_once(f"sharedmem.ray.put stores values: {reason}")
        return ray.put(value)
    if type(value) is np.ndarray and not value.dtype.hasobject:
        with import_lock:
            from sharedmem._copying import asshared
        try:
            value = asshared(value)
        except (MemoryError, OSError, RuntimeError, TypeError, ValueError):
            return ray.put(value)
    ref = ray.put(value, _tensor_transport=NAME)
    # Ray cannot get what it has stored by a transport if that found nothing to carry.
    return ref if is_held_by_transport(ref) else ray.put(value)
