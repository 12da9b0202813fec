"""Exceptions of this package."""


class StaleHandleError(ValueError):
    """The memory that a pickled array named has gone, or is out of reach.

    A pickle of a shared array holds a handle. One sent by :mod:`multiprocessing` keeps its memory
    alive until it is loaded; any other pickle (`pickle.dumps`, a file, a socket) does not, and means
    nothing on another host or after a restart. For a pickle that holds the data see
    :func:`sharedmem.pickle_by_value`.
    """


StaleHandleError.__module__ = "sharedmem"
