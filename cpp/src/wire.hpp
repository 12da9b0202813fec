#pragma once
/// Private: words in little-endian order whatever the machine, and the checksum of what travels.
#include <bit>
#include <cstddef>
#include <cstdint>

namespace sharedmem::wire {

// Byte by byte, so that the order is the same everywhere; compilers make one load or store of it.
template <class Word>
Word get_word(const std::byte* from) noexcept {
  Word word = 0;
  for (unsigned i = 0; i < sizeof(Word); ++i)
    word = static_cast<Word>(word | static_cast<Word>(from[i]) << (8 * i));
  return word;
}

template <class Word>
void put_word(std::byte* to, Word word) noexcept {
  for (unsigned i = 0; i < sizeof(Word); ++i) to[i] = static_cast<std::byte>(word >> (8 * i));
}

// A bijection of 32-bit words: two different words stay different, which is what makes the checksum
// notice every change of a single byte. The factor is the golden ratio in 32 bits, an odd number.
constexpr std::uint32_t mix(std::uint32_t word) noexcept {
  word *= 0x9e3779b1u;
  return word ^ word >> 15;
}

/// Any change of one byte changes the result; any other change does so too, except in one case of 2^32.
/// Two lanes, because each step of one waits for the multiplication of the step before.
inline std::uint32_t checksum(const std::byte* data, std::size_t size) noexcept {
  auto even = static_cast<std::uint32_t>(size);
  std::uint32_t odd = 0x85ebca6bu;  // any constant that differs from a likely size
  for (; size >= 8; data += 8, size -= 8) {
    even = mix(even ^ get_word<std::uint32_t>(data));
    odd = mix(odd ^ get_word<std::uint32_t>(data + 4));
  }
  std::uint64_t rest = 0;
  for (std::size_t i = 0; i < size; ++i) rest |= std::uint64_t{static_cast<std::uint8_t>(data[i])} << (8 * i);
  even = mix(even ^ static_cast<std::uint32_t>(rest));
  odd = mix(odd ^ static_cast<std::uint32_t>(rest >> 32));
  return mix(even ^ std::rotl(odd, 16));
}

}  // namespace sharedmem::wire
