#pragma once

/// \file
/// Sizes that small and medium blocks are rounded up to: multiples of 64 bytes, eight per doubling
/// above 512, so that at most 12.5 % of a block above 512 bytes is rounding. Larger blocks are runs of chunks.
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "shared/layout.hpp"

namespace sharedmem {

inline constexpr std::uint32_t class_count = 96;
inline constexpr std::uint32_t no_class = 255;                  ///< a run of chunks
inline constexpr std::uint64_t max_class_bytes = chunk_bytes / 2;

/// Smallest class that holds `bytes`; pre: 1 <= bytes <= max_class_bytes.
constexpr std::uint32_t class_of(std::uint64_t bytes) noexcept {
  if (bytes <= 512) return static_cast<std::uint32_t>((bytes + 63) / 64 - 1);
  const auto top = static_cast<std::uint32_t>(std::bit_width(bytes - 1)) - 1;  // 2^top < bytes <= 2^(top+1)
  const auto eighth = static_cast<std::uint32_t>((bytes - 1) >> (top - 3)) & 7;
  return 8 + (top - 9) * 8 + eighth;
}

/// Bytes of a class.
constexpr std::uint64_t class_bytes(std::uint32_t c) noexcept {
  if (c < 8) return (c + 1) * std::uint64_t{64};
  const std::uint32_t top = 9 + (c - 8) / 8;
  return (std::uint64_t{1} << top) + ((c - 8) % 8 + 1) * (std::uint64_t{1} << (top - 3));
}

constexpr std::uint32_t blocks_per_chunk(std::uint32_t c) noexcept {
  return static_cast<std::uint32_t>(chunk_bytes / class_bytes(c));
}

static_assert(class_of(max_class_bytes) == class_count - 1 &&
              class_bytes(class_count - 1) == max_class_bytes);
static_assert(class_of(1) == 0 && class_of(65) == 1 && class_of(513) == 8 && class_bytes(8) == 576);

}  // namespace sharedmem
