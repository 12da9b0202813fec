#include <doctest.h>

#include <cstdint>

#include "heap/size_class.hpp"

using namespace sharedmem;

TEST_CASE("every size has the smallest class that holds it") {
  for (std::uint64_t bytes = 1; bytes <= max_class_bytes; bytes += bytes < 8192 ? 1 : 61) {
    const std::uint32_t c = class_of(bytes);
    REQUIRE(c < class_count);
    REQUIRE(class_bytes(c) >= bytes);
    if (c > 0) REQUIRE(class_bytes(c - 1) < bytes);
  }
}

TEST_CASE("classes are aligned, grow, and waste at most an eighth above 512 bytes") {
  for (std::uint32_t c = 0; c < class_count; ++c) {
    CAPTURE(c);
    CHECK(class_bytes(c) % 64 == 0);
    CHECK(class_of(class_bytes(c)) == c);
    CHECK(blocks_per_chunk(c) * class_bytes(c) <= chunk_bytes);
    if (c == 0) continue;
    CHECK(class_bytes(c) > class_bytes(c - 1));
    if (class_bytes(c) > 512) CHECK(class_bytes(c) - class_bytes(c - 1) <= class_bytes(c - 1) / 8);
  }
}

TEST_CASE("powers of two are classes of their own, for alignment") {
  for (std::uint64_t bytes = 64; bytes <= max_class_bytes; bytes *= 2)
    CHECK(class_bytes(class_of(bytes)) == bytes);
}
