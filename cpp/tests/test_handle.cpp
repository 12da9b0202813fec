#include <doctest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include <sharedmem/handle.hpp>

#include "handle_tools.hpp"
#include "wire.hpp"

using namespace sharedmem;

namespace {

constexpr std::uint64_t most_48_bits = (std::uint64_t{1} << 48) - 1;
constexpr std::int64_t most_signed = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t least_signed = std::numeric_limits<std::int64_t>::min();

using bytes = std::vector<std::byte>;

handle sample(geometry g = shaped({1000, 2000}, {16000, 8})) {
  handle h;
  h.where = {
      {os::usual_kind, 12345678, 0}, std::uint64_t{1} << 40, {0x0123456789abcdef, 42}, 0xfedcba9876543210};
  h.what = {.block = 70000, .generation = 300, .lease = 5, .nonce = 1000};
  h.shape = g;
  h.dtype = "<f8";
  return h;
}

bytes encoded(const handle& h) {
  bytes out(max_handle_bytes + h.dtype.size());
  out.resize(encode(h, out));
  return out;
}

void check_same(const handle& a, const handle& b) {
  ::check_same(a.where, b.where);
  CHECK(a.what.block == b.what.block);
  CHECK(a.what.generation == b.what.generation);
  CHECK(a.what.lease == b.what.lease);
  CHECK(a.what.nonce == b.what.nonce);
  CHECK(a.shape.offset == b.shape.offset);
  CHECK(a.shape.itemsize == b.shape.itemsize);
  CHECK(a.shape.writable == b.shape.writable);
  CHECK(a.shape.read_only_mapping == b.shape.read_only_mapping);
  REQUIRE(a.shape.ndim == b.shape.ndim);
  CHECK(std::equal(a.shape.shape, a.shape.shape + a.shape.ndim, b.shape.shape));
  CHECK(std::equal(a.shape.strides, a.shape.strides + a.shape.ndim, b.shape.strides));
  CHECK(a.dtype == b.dtype);
}

void check_round_trip(const handle& h) {
  const bytes wire = encoded(h);
  check_same(decode(wire), h);
}

bool refused(const bytes& wire) {
  try {
    (void)decode(wire);
    return false;
  } catch (const std::invalid_argument&) {
    return true;
  }
}

std::string reason(const bytes& wire) {
  try {
    (void)decode(wire);
    return {};
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
}

}  // namespace

TEST_CASE("a handle comes back as it was") {
  check_round_trip(sample());
  handle h = sample();

  SUBCASE("read-only") { h.shape.writable = false; }
  SUBCASE("no lease") {
    h.what.lease = no_lease;
    h.what.nonce = 0;
  }
  SUBCASE("memfd") { h.where.segment = {backing::memfd, 7, 4194304}; }
  SUBCASE("no dtype") { h.dtype = {}; }
  SUBCASE("dtype with every byte") {
    static const std::string all = [] {
      std::string s;
      for (int i = 0; i < 3000; ++i) s += static_cast<char>(i);
      return s;
    }();
    h.dtype = all;
  }
  SUBCASE("no axes") { h.shape = shaped({}, {}); }
  SUBCASE("one axis") { h.shape = shaped({3}, {8}); }
  SUBCASE("Fortran order") { h.shape = shaped({10, 20, 30}, {8, 80, 1600}); }
  SUBCASE("negative and zero strides") { h.shape = shaped({10, 20, 30}, {-8, 0, 160}, 8, 72); }
  SUBCASE("no elements") { h.shape = shaped({4, 0, 3}, {24, 24, 8}); }
  SUBCASE("no elements, odd strides") { h.shape = shaped({4, 0, 3}, {1, -2, 3}); }
  SUBCASE("axes of one element with strides of their own") { h.shape = shaped({1, 5, 1}, {999, 8, -999}); }
  SUBCASE("no bytes per element") { h.shape = shaped({5, 6}, {0, 0}, 0); }
  SUBCASE("broadcast to the largest shape") { h.shape = shaped({most_signed, most_signed}, {0, 0}); }
  SUBCASE("a contiguous shape that overflows") {
    h.shape = shaped({most_signed, most_signed, 2}, {most_signed, 16, 8});
  }
  check_round_trip(h);
}

TEST_CASE("the largest value of every field fits into max_handle_bytes") {
  handle h;
  h.where = {
      {backing::memfd, std::numeric_limits<std::int32_t>::max(), std::numeric_limits<std::int32_t>::max()},
      ~std::uint64_t{0},
      {~std::uint64_t{0}, ~std::uint64_t{0}},
      ~std::uint64_t{0}};
  h.what.block = 0xffffffff;
  h.what.generation = h.what.nonce = most_48_bits;
  h.what.lease = no_lease - 1;
  h.shape = shaped(std::vector<std::int64_t>(64, most_signed), std::vector<std::int64_t>(64, least_signed),
                   0xffffffff, ~std::uint64_t{0});
  check_round_trip(h);
  CHECK(encoded(h).size() <= max_handle_bytes);
}

TEST_CASE("a handle of an everyday array is short") {
  CHECK(encoded(sample()).size() <= 80);
  handle h = sample(shaped({1 << 20}, {8}));
  h.what.lease = no_lease;
  h.what.nonce = 0;
  CHECK(encoded(h).size() <= 80);
}

TEST_CASE("a handle says through which mapping it is to be loaded, and that one of them cannot write") {
  handle h = sample();
  h.shape.writable = false;
  h.shape.read_only_mapping = true;
  check_round_trip(h);
  h.shape.writable = true;
  CHECK_THROWS_AS(encoded(h), std::invalid_argument);
}

TEST_CASE("contiguous arrays carry no strides, of any order") {
  const std::size_t c = encoded(sample(shaped({10, 20, 30}, {4800, 240, 8}))).size();
  const std::size_t f = encoded(sample(shaped({10, 20, 30}, {8, 80, 1600}))).size();
  const std::size_t neither = encoded(sample(shaped({10, 20, 30}, {4800, 8, 160}))).size();
  CHECK(c == f);
  CHECK(neither == c + 5);
}

TEST_CASE("the wire is the same on every machine") {
  const unsigned char expected[] = {
      0xa2, 0x0b,                                                             // magic and version, flags
      0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01, 42,  0,   0,  0, 0, 0, 0, 0,  // uuid
      0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe,                         // host
      0xce, 0xc2, 0xf1, 0x05,                                                 // segment id 12345678
      0x80, 0x80, 0x80, 0x80, 0x80, 0x20,                                     // 1 TiB
      0xf0, 0xa2, 0x04, 0xac, 0x02, 5,    0xe8, 0x07,  // block, generation, lease, nonce
      0,    8,    2,    0xe8, 0x07, 0xd0, 0x0f, 3,    '<', 'f', '8'};
  const bytes wire = encoded(sample());
  REQUIRE(wire.size() == sizeof expected + 4);
  CHECK(std::memcmp(wire.data(), expected, sizeof expected) == 0);
  const unsigned char sum[] = {0xbd, 0x68, 0x0d, 0x7c};
  CHECK(std::memcmp(wire.data() + sizeof expected, sum, sizeof sum) == 0);
}

TEST_CASE("a buffer that is too small is an error, a buffer that just suffices is not") {
  const handle h = sample();
  const std::size_t size = encoded(h).size();
  for (std::size_t room = 0; room < size; ++room) {
    bytes out(room);
    CHECK_THROWS_AS((void)encode(h, out), std::length_error);
  }
  bytes out(size);
  CHECK(encode(h, out) == size);
}

TEST_CASE("encode refuses fields out of range") {
  bytes out(max_handle_bytes + 3);
  handle h = sample();
  SUBCASE("no segment") { h.where.segment.kind = backing::none; }
  SUBCASE("id") { h.where.segment.id = -1; }
  SUBCASE("pid") { h.where.segment.pid = -1; }
  SUBCASE("generation") { h.what.generation = most_48_bits + 1; }
  SUBCASE("nonce") { h.what.nonce = most_48_bits + 1; }
  SUBCASE("nonce without lease") { h.what.lease = no_lease; }
  SUBCASE("too few axes") { h.shape.ndim = -1; }
  SUBCASE("too many axes") { h.shape.ndim = 65; }
  SUBCASE("shape") { h.shape.shape[1] = -1; }
  CHECK_THROWS_AS((void)encode(h, out), std::invalid_argument);
}

TEST_CASE("a truncated handle is refused at every length, and so is one with bytes after it") {
  const bytes wire = encoded(sample());
  for (std::size_t size = 0; size < wire.size(); ++size)
    CHECK(refused(bytes(wire.begin(), wire.begin() + static_cast<std::ptrdiff_t>(size))));
  bytes longer = wire;
  longer.push_back(std::byte{0});
  CHECK(refused(longer));
}

TEST_CASE("every change of a single byte is refused") {
  for (const handle& h : {sample(), sample(shaped({7, 5}, {-16, 120}, 8, 96)), sample(shaped({}, {}))}) {
    const bytes wire = encoded(h);
    for (std::size_t at = 0; at < wire.size(); ++at) {
      for (unsigned change = 1; change < 256; ++change) {
        bytes altered = wire;
        altered[at] ^= static_cast<std::byte>(change);
        REQUIRE(refused(altered));
      }
    }
  }
}

TEST_CASE("random bytes and random damage are refused") {
  std::mt19937_64 random(1);
  const bytes wire = encoded(sample());
  for (int round = 0; round < 20000; ++round) {
    bytes altered = wire;
    for (std::uint64_t n = 1 + random() % 8; n != 0; --n)
      altered[random() % altered.size()] = static_cast<std::byte>(random());
    if (altered != wire) REQUIRE(refused(altered));
    for (std::byte& byte : altered) byte = static_cast<std::byte>(random());
    REQUIRE(refused(altered));
  }
}

TEST_CASE("the reason of a refusal is named") {
  const bytes wire = encoded(sample());
  CHECK(reason({}).find("not a handle") != std::string::npos);
  bytes other = wire;
  other[0] = std::byte{0x80};
  CHECK(reason(other).find("not a handle") != std::string::npos);
  other[0] = std::byte{0xaf};
  CHECK(reason(other).find("version") != std::string::npos);
  CHECK(reason({wire.begin(), wire.begin() + 10}).find("truncated") != std::string::npos);
  other = wire;
  other.back() ^= std::byte{1};
  CHECK(reason(other).find("checksum") != std::string::npos);
}

TEST_CASE("bytes with a right checksum but a field out of range are refused, and the field is named") {
  const auto field = [](std::initializer_list<int> tail, int flags = 0x0b) {
    bytes wire = encoded(sample());
    wire.resize(26);  // up to host
    wire[1] = static_cast<std::byte>(flags);
    for (int byte : tail) wire.push_back(static_cast<std::byte>(byte));
    wire.resize(wire.size() + 4);
    wire::put_word(wire.data() + wire.size() - 4, wire::checksum(wire.data(), wire.size() - 4));
    return wire;
  };
  // segment id, segment bytes, block, generation, lease, nonce, offset, itemsize, ndim, shape, dtype
  CHECK(reason(field({1, 1, 1, 1, 1, 1, 0, 8, 1, 5, 0})).empty());
  CHECK(reason(field({1, 1, 1, 1, 0, 8, 1, 5, 16, 0}, 1)).empty());

  const auto named = [&](const char* name, std::initializer_list<int> tail, int flags = 0x0b) {
    CAPTURE(name);
    CHECK(reason(field(tail, flags)).find(name) != std::string::npos);
  };
  CHECK(reason(field({1, 1, 1, 1, 1, 1, 0, 8, 1, 5, 0}, 0x2a)).empty());
  named("flags", {1, 1, 1, 1, 1, 1, 0, 8, 1, 5, 0}, 0x2b);  // writable through a read-only mapping
  named("flags", {1, 1, 1, 1, 1, 1, 0, 8, 1, 5, 0}, 0x4b);
  named("flags", {1, 1, 1, 1, 1, 1, 0, 8, 1, 5, 0}, 0x0f);
  named("segment", {0x80, 0x80, 0x80, 0x80, 0x08, 1, 1, 1, 1, 1, 0, 8, 1, 5, 0});
  named("segment", {1, 0x80, 0x80, 0x80, 0x80, 0x08, 1, 1, 1, 1, 0, 8, 1, 5, 0}, 0x1b);
  named("block", {1, 1, 0xff, 0xff, 0xff, 0xff, 0x1f, 1, 1, 1, 0, 8, 1, 5, 0});
  named("generation", {1, 1, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40, 1, 1, 0, 8, 1, 5, 0});
  named("lease", {1, 1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 0, 8, 1, 5, 0});
  named("nonce", {1, 1, 1, 1, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40, 0, 8, 1, 5, 0});
  named("offset", {1, 1, 1, 1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 8, 1, 5, 0});
  named("itemsize", {1, 1, 1, 1, 1, 1, 0, 0x80, 0x80, 0x80, 0x80, 0x10, 1, 5, 0});
  named("number of axes", {1, 1, 1, 1, 1, 1, 0, 8, 65, 5, 0});
  named("shape", {1, 1, 1, 1, 1, 1, 0, 8, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1, 0});
  named("strides", {1, 1, 1, 1, 0, 8, 1, 5}, 1);
  named("dtype", {1, 1, 1, 1, 1, 1, 0, 8, 1, 5, 1});
  named("dtype", {1, 1, 1, 1, 1, 1, 0, 8, 1, 5});
  named("further bytes", {1, 1, 1, 1, 1, 1, 0, 8, 1, 5, 0, 0});
  named("offset", {1, 1, 1, 1, 1, 1, 0x80, 0x00, 8, 1, 5, 0});  // 0, but not in its shortest form
  // a C contiguous shape whose strides overflow
  named("shape", {1, 1, 1, 1, 1, 1, 0, 8, 3, 5, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 5, 0});
}
