#pragma once
/// \file
/// Fills memory with copies of one item.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <sharedmem/copying.hpp>

namespace sharedmem_pyx {

template <class Word>
void fill_words(void* out, const void* item, std::size_t count) noexcept {
  Word word;
  std::memcpy(&word, item, sizeof word);
  std::fill_n(static_cast<Word*>(out), count, word);
}

/// Writes `count` copies of the `size` bytes at `item` to `out`, which is aligned to 64 bytes.
inline void fill(void* out, const void* item, std::size_t size, std::size_t count) noexcept {
  struct pair {
    std::uint64_t words[2];
  };
  switch (size) {
    case 0: return;
    case 1: std::memset(out, *static_cast<const unsigned char*>(item), count); return;
    case 2: fill_words<std::uint16_t>(out, item, count); return;
    case 4: fill_words<std::uint32_t>(out, item, count); return;
    case 8: fill_words<std::uint64_t>(out, item, count); return;
    case 16: fill_words<pair>(out, item, count); return;
    default: break;
  }
  auto* const start = static_cast<std::byte*>(out);
  const std::size_t bytes = size * count;
  if (bytes == 0) return;
  std::memcpy(start, item, size);
  // Copies the part that is filled already, doubling it as long as it stays in the cache.
  std::size_t done = size;
  const std::size_t most = std::max<std::size_t>(size, std::size_t{1} << 16);
  while (done < bytes) {
    const std::size_t next = std::min({done, bytes - done, most / size * size});
    std::memcpy(start + done, start, next);
    done += next;
  }
}

/// The same by several threads, where that pays.
inline void fill_large(void* out, const void* item, std::size_t size, std::size_t count) noexcept {
  struct task {
    std::byte* out;
    const void* item;
    std::size_t size;
  } all{static_cast<std::byte*>(out), item, size};
  if (size == 0) return;
  sharedmem::in_parts(
      count, size,
      [](void* context, std::size_t begin, std::size_t end) noexcept {
        const task& t = *static_cast<task*>(context);
        fill(t.out + begin * t.size, t.item, t.size, end - begin);
      },
      &all);
}

}  // namespace sharedmem_pyx
