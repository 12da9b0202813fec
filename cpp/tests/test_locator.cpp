#include <doctest.h>

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

#include <sharedmem/handle.hpp>

#include "handle_tools.hpp"

using namespace sharedmem;

TEST_CASE("a locator's text comes back as it was") {
  for (const locator& where :
       {locator{{os::usual_kind, 0, 0}, 0, {0, 0}, 0},
        locator{{os::usual_kind, 32769, 0}, std::uint64_t{1} << 40, {1, ~std::uint64_t{0}}, 0xabcdef},
        locator{{backing::memfd, 2147483647, 2147483647},
                ~std::uint64_t{0},
                {~std::uint64_t{0}, 1},
                ~std::uint64_t{0}}}) {
    const std::string text = to_text(where);
    CHECK(std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 127; }));
    const auto back = parse_locator(text);
    REQUIRE(back);
    check_same(*back, where);
  }
  CHECK_THROWS_AS((void)to_text(locator{}), std::invalid_argument);
}

TEST_CASE("a locator's text that is cut, longer or altered is refused") {
  const std::string text = to_text({{backing::memfd, 5, 1234}, std::uint64_t{1} << 40, {123, 456}, 789});
  for (std::size_t size = 0; size < text.size(); ++size) CHECK_FALSE(parse_locator(text.substr(0, size)));
  for (const char* more : {" ", "\n", "0", ":", ":0"}) CHECK_FALSE(parse_locator(text + more));
  CHECK_FALSE(parse_locator(" " + text));
  for (std::size_t at = 0; at < text.size(); ++at) {
    for (int change = 1; change < 256; ++change) {
      std::string altered = text;
      altered[at] = static_cast<char>(static_cast<unsigned char>(altered[at]) ^ change);
      REQUIRE_FALSE(parse_locator(altered));
    }
  }
  for (const char* none :
       {"", "new", "sharedmem-", "sharedmem-2", "sharedmem-2:sysv:1:0:1:0:0:0", "sharedmem-99999999999:sysv"})
    CHECK_FALSE(parse_locator(none));
}
