"""ctypes types and NumPy dtypes of the same bytes."""

import ctypes
import functools
import math
import operator
import sys
from _ctypes import CFuncPtr
from typing import Any

import numpy as np

Lengths = tuple[int, ...]

# The letters of multiprocessing and of the standard library's array module.
TYPECODES = {
    "c": ctypes.c_char,
    "u": ctypes.c_wchar,
    "b": ctypes.c_byte,
    "B": ctypes.c_ubyte,
    "h": ctypes.c_short,
    "H": ctypes.c_ushort,
    "i": ctypes.c_int,
    "I": ctypes.c_uint,
    "l": ctypes.c_long,
    "L": ctypes.c_ulong,
    "q": ctypes.c_longlong,
    "Q": ctypes.c_ulonglong,
    "f": ctypes.c_float,
    "d": ctypes.c_double,
}

# A character of NumPy has four bytes. Wide characters of Windows have two, which is half of some characters:
# there they are seen as numbers.
_WIDE = np.dtype("U1") if ctypes.sizeof(ctypes.c_wchar) == 4 else np.dtype(np.uint16)

DATA = (ctypes._SimpleCData, ctypes.Array, ctypes.Structure, ctypes.Union)

# Types whose value is an address, which is valid in one process only, with what to do instead.
_POINTERS = {
    ctypes.py_object: "Python objects belong to one process",
    ctypes.c_char_p: "the text would stay private; use Array('c', ...)",
    ctypes.c_wchar_p: "the text would stay private; use Array('u', ...)",
}

_NUMBERS = (
    ctypes.c_bool,
    ctypes.c_byte,
    ctypes.c_ubyte,
    ctypes.c_short,
    ctypes.c_ushort,
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.c_long,
    ctypes.c_ulong,
    ctypes.c_longlong,
    ctypes.c_ulonglong,
    ctypes.c_float,
    ctypes.c_double,
    ctypes.c_longdouble,
)
# The attribute of a number's type that is the type of the other byte order.
_SWAPPED = "__ctype_be__" if sys.byteorder == "little" else "__ctype_le__"
# By kind and size, because where two types of C have the same size, as long and long long may, ctypes has one
# type for both, while NumPy has a letter for each.
_NUMBER_OF = {(np.dtype(number).kind, np.dtype(number).itemsize): number for number in _NUMBERS}

# What has a ctypes type in place of a dtype without, by letter or kind.
_INSTEAD = {
    "c": "a.view(a.real.dtype)",
    "e": "a.view('u2')",
    "M": "a.view('i8')",
    "m": "a.view('i8')",
    "U": "a.view('u4')",
    "V": "a.view('u1')",
}


def element_type(typecode_or_type: Any) -> Any:
    """The ctypes type that a letter or a type names, if its values mean the same in any process."""
    type_ = TYPECODES.get(typecode_or_type) if isinstance(typecode_or_type, str) else typecode_or_type
    if not (isinstance(type_, type) and issubclass(type_, (*DATA, ctypes._Pointer, CFuncPtr))):
        raise TypeError(
            f"{typecode_or_type!r} is neither a ctypes type nor one of the letters {' '.join(TYPECODES)}"
        )
    _refuse_pointers(type_, type_.__name__)
    return type_


def _refuse_pointers(type_: Any, where: str) -> None:
    leaf, _ = split(type_)
    for pointer, reason in _POINTERS.items():
        if issubclass(leaf, pointer):
            raise TypeError(f"{where} can't lie in shared memory: {reason}")
    if issubclass(leaf, (ctypes._Pointer, CFuncPtr)):
        raise TypeError(f"{where} can't lie in shared memory: it is a pointer, valid in one process only")
    for name, field, *_ in fields(leaf):
        _refuse_pointers(field, f"{where}.{name}")


def split(type_: Any) -> tuple[Any, Lengths]:
    """(c_int, (4, 3)) for (c_int * 3) * 4."""
    lengths = []
    while issubclass(type_, ctypes.Array):
        lengths.append(type_._length_)
        type_ = type_._type_
    return type_, tuple(lengths)


def nest(type_: Any, lengths: Lengths) -> Any:
    """The reverse of `split`."""
    for length in reversed(lengths):
        type_ = type_ * length
    return type_


def importable(type_: Any) -> Any:
    """The type, or in place of a number's of the other byte order, which no module names, its dtype."""
    if getattr(type_, _SWAPPED, None) is not type_:
        return type_
    dtype = dtype_of(type_)
    return type_ if dtype.isnative else dtype  # single bytes have no order


def fields(type_: Any) -> list[Any]:
    """Entries of `_fields_`, inherited ones first; none if it has no fields."""
    found = []
    for base in reversed(type_.__mro__):
        found += vars(base).get("_fields_", ())
    return found


def dtype_of(type_: Any) -> Any:
    """The dtype of one value of a ctypes type, a subarray dtype for an array type."""
    leaf, lengths = split(type_)
    if lengths:
        return np.dtype((dtype_of(leaf), lengths))
    if issubclass(leaf, (ctypes.Structure, ctypes.Union)):
        return _dtype_of_structure(leaf)
    if issubclass(leaf, ctypes.c_wchar):
        return _WIDE
    try:
        dtype = np.dtype(leaf)
    except (TypeError, NotImplementedError) as error:
        raise TypeError(f"values of {leaf.__name__} have no NumPy dtype: {error}") from None
    if dtype.hasobject:
        raise TypeError(f"values of {leaf.__name__} are Python objects, which are valid in one process only")
    return dtype


def _dtype_of_structure(type_: Any) -> Any:
    names, formats, offsets = [], [], []
    for name, field, *bits in fields(type_):
        if bits:
            raise TypeError(f"{type_.__name__}.{name} is a bit field, which NumPy dtypes do not support")
        names.append(name)
        formats.append(dtype_of(field))
        offsets.append(getattr(type_, name).offset)
    return np.dtype(
        {"names": names, "formats": formats, "offsets": offsets, "itemsize": ctypes.sizeof(type_)}
    )


@functools.lru_cache(maxsize=256)
def type_of(dtype: Any) -> Any:
    """The ctypes type of one element of a dtype."""
    if dtype.subdtype is not None:
        base, lengths = dtype.subdtype
        return nest(type_of(base), lengths)
    if dtype.names is not None:
        return _structure_of(dtype)
    if dtype.kind == "S" and dtype.itemsize:
        return ctypes.c_char if dtype.itemsize == 1 else ctypes.c_char * dtype.itemsize
    if dtype.kind == _WIDE.kind == "U" and dtype.itemsize and dtype.isnative:
        length = dtype.itemsize // _WIDE.itemsize
        return ctypes.c_wchar if length == 1 else ctypes.c_wchar * length
    number = _NUMBER_OF.get((dtype.kind, dtype.itemsize))
    if number is not None and not dtype.isnative:
        number = getattr(number, _SWAPPED, None)
    if number is None:
        instead = _INSTEAD.get(dtype.char, _INSTEAD.get(dtype.kind))
        raise TypeError(f"dtype {dtype} has no ctypes type" + (f"; {instead} has one" if instead else ""))
    return number


def _structure_of(dtype: Any) -> Any:
    members, end = [], 0
    for name in sorted(dtype.names, key=lambda name: dtype.fields[name][1]):
        field, offset = dtype.fields[name][:2]
        if offset < end:
            raise TypeError(
                f"field {name!r} of dtype {dtype} overlaps another one, which a ctypes structure can't have"
            )
        if offset > end:
            members.append((f"__pad_{end}", ctypes.c_ubyte * (offset - end)))
        members.append((name, type_of(field)))
        end = offset + field.itemsize
    if dtype.itemsize > end:
        members.append((f"__pad_{end}", ctypes.c_ubyte * (dtype.itemsize - end)))
    # _pack_ implies this _layout_; Python 3.14 requires that it is stated.
    return type("struct", (ctypes.Structure,), {"_pack_": 1, "_layout_": "ms", "_fields_": members})


def shape_for(shape: Any, lengths: Lengths) -> Lengths:
    """A shape for as many elements as `lengths` has, -1 standing for what remains."""
    if shape is None:
        return lengths
    try:
        wanted = tuple(map(operator.index, shape)) if np.iterable(shape) else (operator.index(shape),)
    except TypeError:
        raise TypeError(f"a shape is an integer or a sequence of them, not {shape!r}") from None
    size = math.prod(lengths)
    known = math.prod(n for n in wanted if n != -1)
    if wanted.count(-1) == 1 and known > 0 and size % known == 0:
        wanted = tuple(size // known if n == -1 else n for n in wanted)
    if math.prod(wanted) != size or min(wanted, default=0) < 0:
        fitting = " or ".join(map(str, dict.fromkeys([lengths, (size,)])))
        raise ValueError(
            f"shape {shape!r} does not fit {size} elements: {fitting} does, and any "
            f"other whose product is {size}"
        )
    return wanted
