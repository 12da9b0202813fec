#include <doctest.h>

#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include <sharedmem/handle.hpp>

#include "handle_tools.hpp"

using namespace sharedmem;

namespace {

constexpr std::int64_t most_signed = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t least_signed = std::numeric_limits<std::int64_t>::min();

}  // namespace

TEST_CASE("fits") {
  CHECK(fits(shaped({10, 10}, {80, 8}), 800));
  CHECK_FALSE(fits(shaped({10, 10}, {80, 8}), 799));
  CHECK(fits(shaped({10, 10}, {80, 8}, 8, 8), 808));
  CHECK_FALSE(fits(shaped({10, 10}, {80, 8}, 8, 9), 808));

  SUBCASE("no axes: one element") {
    CHECK(fits(shaped({}, {}), 8));
    CHECK_FALSE(fits(shaped({}, {}), 7));
    CHECK_FALSE(fits(shaped({}, {}, 8, 1), 8));
  }
  SUBCASE("negative strides reach below the first element") {
    CHECK(fits(shaped({10}, {-8}, 8, 72), 80));
    CHECK_FALSE(fits(shaped({10}, {-8}, 8, 71), 80));
    CHECK_FALSE(fits(shaped({10}, {-8}, 8, 73), 80));
    CHECK(fits(shaped({3, 4}, {32, -8}, 8, 24), 96));
    CHECK_FALSE(fits(shaped({3, 4}, {32, -8}, 8, 24), 95));
  }
  SUBCASE("strides of zero") {
    CHECK(fits(shaped({most_signed, most_signed}, {0, 0}), 8));
    CHECK_FALSE(fits(shaped({most_signed, most_signed}, {0, 0}), 7));
  }
  SUBCASE("no elements: nothing but the offset counts") {
    CHECK(fits(shaped({most_signed, 0}, {most_signed, least_signed}, 8, 16), 16));
    CHECK_FALSE(fits(shaped({most_signed, 0}, {8, 8}, 8, 17), 16));
    CHECK(fits(shaped({0}, {8}), 0));
  }
  SUBCASE("no bytes per element") {
    CHECK(fits(shaped({5}, {0}, 0), 0));
    CHECK(fits(shaped({5}, {0}, 0, 3), 3));
    CHECK_FALSE(fits(shaped({5}, {0}, 0, 4), 3));
  }
  SUBCASE("a stride along an axis of one element does not count") {
    CHECK(fits(shaped({1, 10}, {most_signed, 8}), 80));
    CHECK(fits(shaped({1}, {least_signed}), 8));
  }
  SUBCASE("sixty-four axes") {
    std::vector<std::int64_t> shape(64, 1), strides(64, 8);
    CHECK(fits(shaped(shape, strides), 8));
    shape[63] = 2;
    CHECK_FALSE(fits(shaped(shape, strides), 15));
    CHECK(fits(shaped(shape, strides), 16));
  }
}

TEST_CASE("fits: nothing overflows") {
  constexpr std::uint64_t all = ~std::uint64_t{0};
  CHECK_FALSE(fits(shaped({2}, {most_signed}, 8, all), all));
  CHECK_FALSE(fits(shaped({2}, {8}, 8, all - 15), all));
  CHECK(fits(shaped({2}, {7}, 8, all - 15), all));
  CHECK_FALSE(fits(shaped({2}, {8}, 8, all), all));
  CHECK_FALSE(fits(shaped({most_signed}, {most_signed}), all));
  CHECK_FALSE(fits(shaped({most_signed}, {least_signed}, 8, all), all));
  CHECK_FALSE(fits(shaped({3, 3}, {most_signed, most_signed}), all));
  CHECK_FALSE(fits(shaped({3, 3}, {least_signed, least_signed}, 8, all), all));
  CHECK_FALSE(fits(shaped({2, 2, 2}, {most_signed, most_signed, 2}, 1), all));
  CHECK(fits(shaped({2, 2}, {most_signed, most_signed}, 1), all));
  CHECK(fits(shaped({2}, {least_signed}, 0xffffffff, std::uint64_t{1} << 63), all));
  CHECK_FALSE(fits(shaped({2}, {least_signed}, 1, (std::uint64_t{1} << 63) - 1), all));

  geometry g = shaped({2}, {8});
  g.ndim = 65;
  CHECK_FALSE(fits(g, all));
  g.ndim = -1;
  CHECK_FALSE(fits(g, all));
  CHECK_FALSE(fits(shaped({-1}, {8}), all));
  CHECK_FALSE(fits(shaped({0, -1}, {8, 8}), all));
}

TEST_CASE("fits agrees with counting every byte") {
  std::mt19937 random(2);
  const auto between = [&](int low, int high) {
    return low + static_cast<int>(random() % static_cast<unsigned>(high - low + 1));
  };
  int yes = 0;
  for (int round = 0; round < 20000; ++round) {
    const geometry g = shaped(
        {between(0, 4), between(0, 4), between(1, 4)}, {between(-9, 9), between(-9, 9), between(-9, 9)},
        static_cast<std::uint32_t>(between(1, 5)), static_cast<std::uint64_t>(between(0, 60)));
    const std::int64_t size = between(0, 100);
    bool inside = g.offset <= static_cast<std::uint64_t>(size);
    bool any = false;
    for (std::int64_t i = 0; i < g.shape[0]; ++i)
      for (std::int64_t j = 0; j < g.shape[1]; ++j)
        for (std::int64_t k = 0; k < g.shape[2]; ++k) {
          const std::int64_t at =
              static_cast<std::int64_t>(g.offset) + i * g.strides[0] + j * g.strides[1] + k * g.strides[2];
          any = true;
          inside = inside && at >= 0 && at + static_cast<std::int64_t>(g.itemsize) <= size;
        }
    REQUIRE(fits(g, static_cast<std::uint64_t>(size)) == inside);
    yes += any && inside;
  }
  CHECK(yes > 1000);
}
