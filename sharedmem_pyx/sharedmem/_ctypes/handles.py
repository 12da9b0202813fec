"""ctypes objects that travel as handles of their memory."""

import ctypes
import weakref
from multiprocessing import sharedctypes
from multiprocessing.reduction import ForkingPickler

import numpy as np

from sharedmem._ctypes.dtypes import importable, nest, type_of


class _ByHandle:
    """What makes a ctypes type's objects travel by handle."""

    __slots__ = ()

    @classmethod
    def from_buffer(cls, *args):
        # multiprocessing.sharedctypes.copy() has just registered its own function for this type.
        ForkingPickler.register(cls, cls.__reduce__)
        return type(cls).from_buffer(cls, *args)

    def __reduce__(self):
        if hasattr(self, "_sharedmem"):
            memory, element, lengths = self._sharedmem
            return attach, (element, lengths, memory)
        if hasattr(self, "_wrapper"):  # made by multiprocessing.sharedctypes.copy()
            return sharedctypes.reduce_ctype(self)
        return self.__copy__().__reduce__()  # made by calling the class: in private memory

    def __copy__(self):
        """A copy in private memory, as multiprocessing's objects give."""
        return self._private_type.from_buffer_copy(self)

    def __deepcopy__(self, memo):
        return self.__copy__()


# ctypes type -> its subclass that travels by handle. A subclass, because pickling functions are
# registered for exact types, and multiprocessing registers its own for those that it shares.
_sendable_types = weakref.WeakKeyDictionary()


def _sendable(type_):
    try:
        return _sendable_types[type_]
    except KeyError:
        if issubclass(type_, ctypes._SimpleCData) and importable(type_) is not type_:
            raise TypeError(
                "a single number in non-native byte order can't be sent; an array of one element can"
            ) from None
        members = {"_private_type": type_, "__module__": type_.__module__, "__doc__": type_.__doc__}
        sendable = type(type_)(type_.__name__, (_ByHandle, type_), members)
        return _sendable_types.setdefault(type_, sendable)


def attach(element, lengths, memory):
    """The ctypes object over the bytes `memory`, one element or a nested array of them; it travels by handle.

    `element` is the type of the elements, or a dtype that replaces one that can't be imported.
    """
    type_ = nest(type_of(element) if isinstance(element, np.dtype) else element, lengths)
    if memory.dtype != np.uint8 or memory.ndim != 1 or memory.nbytes != ctypes.sizeof(type_):
        raise ValueError(
            f"{type_.__name__} has {ctypes.sizeof(type_)} bytes, but the memory "
            f"is an array {memory.shape} of {memory.dtype}"
        )
    sendable = _sendable(type_)
    found = sendable.from_buffer(memory) if memory.nbytes else sendable()
    found._sharedmem = memory, element, lengths
    return found
