#pragma once
/// \file
/// What travels between processes: where an arena is (locator), and which bytes of which of its blocks
/// an array consists of (handle), as a few dozen bytes that can be verified before they are used.
///
/// A handle on the wire, little-endian on every machine, version 2:
///
///   | bytes | content                                                                                  |
///   | ----- | ---------------------------------------------------------------------------------------- |
///   | 1     | magic in the upper four bits, `handle_version` in the lower four                         |
///   | 1     | flags: writable 1, C contiguous 2, F contiguous 4, lease 8, memfd 16, read-only mapping  |
///   |       | 32 (not with 1); the others are 0                                                        |
///   | 16, 8 | arena's uuid, host                                                                       |
///   | *     | segment id, segment pid (memfd only), segment bytes, block, generation                   |
///   | *     | lease and nonce (with flag lease only)                                                   |
///   | *     | offset, itemsize, ndim, shape, strides (zigzag; only without the two contiguous flags)   |
///   | *, n  | length of dtype, its n bytes                                                             |
///   | 4     | checksum of all bytes before it                                                          |
///
/// where * is a LEB128 variable-length integer in its shortest form. One altered byte never passes the
/// checksum; other damage passes once in 2^32. It protects against accidents, not against forgery: `decode`
/// only returns handles whose fields are in range, and the arena still checks each of them.
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include <sharedmem/export.hpp>
#include <sharedmem/segment.hpp>

namespace sharedmem {

/// Version of both forms below. It is increased with every change of them or of the arena's layout.
inline constexpr unsigned handle_version = 2;

/// The most axes that an array can have.
inline constexpr int max_ndim = 64;

/// `claim::lease` of a handle that keeps nothing alive.
inline constexpr std::uint32_t no_lease = 0xffffffff;

/// Space for any encoded handle, without its dtype: `max_handle_bytes + dtype.size()` bytes suffice.
inline constexpr std::size_t max_handle_bytes = 1400;

/// Where an arena is.
/// Threads: a plain value.
/// Processes: valid in every process of one host; `segment.pid`, which only a memfd has, is valid
/// in its own pid namespace only.
struct locator {
  segment_name segment;                ///< the arena's primary segment; `pid` travels for a memfd only
  std::uint64_t bytes = 0;             ///< its size
  std::array<std::uint64_t, 2> uuid{}; ///< the arena's; a kernel reuses ids, but a uuid is never reused
  std::uint64_t host = 0;              ///< boot and IPC namespace in which the id is valid
};

/// One line of printable characters without blanks, for an environment variable:
/// `sharedmem-2:KIND:ID:PID:BYTES:UUID:HOST:CHECKSUM`, numbers in decimal, the last three in hexadecimal.
/// \pre    `where.segment` is a name of this system's first kind or of a memfd, its id and pid not negative.
/// \throws std::invalid_argument  the precondition does not hold.
[[nodiscard]] SHAREDMEM_API std::string to_text(const locator& where);

/// The locator from which `text` was made; nothing if it is malformed, altered or of another version.
[[nodiscard]] SHAREDMEM_API std::optional<locator> parse_locator(std::string_view text) noexcept;

/// A claim on a block: which block of an arena, and the reference in flight that keeps it.
struct claim {
  std::uint32_t block = 0;        ///< index of the block's descriptor
  std::uint64_t generation = 0;   ///< which of the block's lives is meant, 48 bits
  std::uint32_t lease = no_lease; ///< index of the lease table's entry, or `no_lease`
  std::uint64_t nonce = 0;        ///< which use of that entry is meant, 48 bits; 0 without lease
};

/// The bytes of a block of which an array consists, and their layout.
/// Entries of `shape` and `strides` past `ndim` are not set and not read.
struct geometry {
  std::uint64_t offset = 0;   ///< bytes from the block's start to the first element's first byte
  std::uint32_t itemsize = 0; ///< bytes per element; may be 0
  int ndim = 0;               ///< axes, at most `max_ndim`
  bool writable = true;
  /// To be loaded through a read-only mapping (`arena::read_only`); `writable` is false then.
  bool read_only_mapping = false;
  std::int64_t shape[max_ndim];   ///< elements along each axis
  std::int64_t strides[max_ndim]; ///< bytes from one element to the next along each axis
};

/// True if every byte of every element lies in [0, block_bytes) of the block, whatever the signs of the
/// strides. An array without elements fits if its offset is at most `block_bytes`. False for an ndim or
/// a shape out of range. No field, however large, overflows.
[[nodiscard]] SHAREDMEM_API bool fits(const geometry& shape, std::uint64_t block_bytes) noexcept;

/// The contents of a pickled array.
/// Ownership: owns nothing; `dtype` refers to memory of the caller.
struct handle {
  locator where;
  claim what; ///< the block in that arena
  geometry shape;
  std::string_view dtype; ///< opaque bytes, may be empty
};

/// Writes `h` to the start of `out`. Allocates nothing.
/// \return the number of bytes written; at most `max_handle_bytes + h.dtype.size()`.
/// \throws std::length_error      `out` is too small; its contents are then unspecified.
/// \throws std::invalid_argument  a field is out of range: the kind, id or pid of the segment, generation,
///                                nonce, ndim, a negative shape, a read-only mapping that is
///                                writable, a dtype of 4 GiB or more.
SHAREDMEM_API std::size_t encode(const handle& h, std::span<std::byte> out);

/// Reads a handle that fills `in` exactly. Allocates nothing. `dtype` points into `in`.
/// \throws std::invalid_argument  what() says why: not a handle, another version, truncated, altered, or
///                                which field is invalid.
[[nodiscard]] SHAREDMEM_API handle decode(std::span<const std::byte> in);

/// Finds handles of this host in the bytes of a message, by their `host`, and verifies their checksum.
/// \param in  the message, of any length.
/// \param from  where to begin.
/// \param found  set if there is one; `dtype` points into `in`.
/// \return the offset past the first handle that begins at `from` or later; 0: there is none.
[[nodiscard]] SHAREDMEM_API std::size_t find_handle(std::span<const std::byte> in, std::size_t from,
                                                    handle& found) noexcept;

}  // namespace sharedmem
