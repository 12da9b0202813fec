"""Handles taken apart, altered, and put together with a checksum that is right again.

The format is the one that sharedmem/handle.hpp describes.
"""

import struct

LEASE, MEMFD, CONTIGUOUS = 8, 16, 2 | 4
FIXED = 26  # bytes: magic, flags, uuid, host
MASK = 0xFFFFFFFF


class Forgery:
    """The fields of a handle, which may be set to anything that fits the format.

    `fixed` is a bytearray, `numbers` a dict of the fields up to `ndim`, `axes` a list of what follows
    them (the shape, and the strides unless a flag says that the array is contiguous), `dtype` bytes.
    """

    def __init__(self, handle):
        self.fixed = bytearray(handle[:FIXED])
        at = FIXED
        self.numbers = {}
        for name in self.names():
            self.numbers[name], at = read_varint(handle, at)
        ndim = self.numbers["ndim"]
        self.axes = []
        for _ in range(ndim if self.fixed[1] & CONTIGUOUS else 2 * ndim):
            value, at = read_varint(handle, at)
            self.axes.append(value)
        length, at = read_varint(handle, at)
        self.dtype = handle[at : at + length]
        assert self.encode() == handle

    def names(self):
        yield "segment"
        if self.fixed[1] & MEMFD:
            yield "pid"
        yield from ("bytes", "block", "generation")
        if self.fixed[1] & LEASE:
            yield from ("lease", "nonce")
        yield from ("offset", "itemsize", "ndim")

    def encode(self):
        numbers = [*self.numbers.values(), *self.axes, len(self.dtype)]
        data = bytes(self.fixed) + b"".join(map(varint, numbers)) + self.dtype
        return data + struct.pack("<I", checksum(data))


def read_varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def mix(word):
    word = word * 0x9E3779B1 & MASK
    return word ^ word >> 15


def checksum(data):
    even, odd = len(data) & MASK, 0x85EBCA6B
    at = 0
    while len(data) - at >= 8:
        a, b = struct.unpack_from("<II", data, at)
        even, odd = mix(even ^ a), mix(odd ^ b)
        at += 8
    rest = int.from_bytes(data[at:], "little")
    even, odd = mix(even ^ rest & MASK), mix(odd ^ rest >> 32)
    return mix(even ^ ((odd << 16 | odd >> 16) & MASK))
