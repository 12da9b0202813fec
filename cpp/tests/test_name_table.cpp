// The table of names alone, in private memory: which names are distinguished, and what a stray write may do to it.
#include <doctest.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <string>

#include "shared/lease_table.hpp"
#include "shared/name_table.hpp"

using namespace sharedmem;

namespace {

/// What the table of names calls `Tables`.
struct private_tables {
  static constexpr std::uint32_t entries = 8;
  std::array<native_atomics::word, entries> words{}, hashes{};
  std::array<std::array<native_atomics::word, name_field_words>, entries> fields{};
  native_atomics::word mark{0};
  std::uint32_t looked_beyond = 0;

  native_atomics::word& name(std::uint32_t i) {
    if (i < entries) return words[i];
    ++looked_beyond;
    return words[0];
  }
  native_atomics::word& name_hash(std::uint32_t i) { return hashes[i % entries]; }
  native_atomics::word* name_fields_of(std::uint32_t i) { return fields[i % entries].data(); }
  native_atomics::word& names_mark() { return mark; }
  std::uint32_t name_count() const { return entries; }
};

using table = name_table<native_atomics, private_tables>;

named bind(table& names, const std::string& name) {
  const auto got = names.claim(name, 1, 4242, 0, [] {});
  REQUIRE(got.how == table::outcome::claimed);
  return names.bind(got.mine, 7, 1, "text", 0);
}

}  // namespace

TEST_CASE("names with equal hashes are distinguished by their bytes and lengths") {
  private_tables tables;
  table names(tables);
  const named bound = bind(names, "a name of 24 bytes, or so");
  for (const std::string other :
       {"a name of 24 bytes, or SO", "a name of 24 byt", "a name o", "A name of 24 bytes, or so"}) {
    CAPTURE(other);
    tables.hashes[bound.entry] = hash_name(other);
    CHECK_FALSE(names.find(other));
  }
  tables.hashes[bound.entry] = hash_name("a name of 24 bytes, or so");
  CHECK(names.find("a name of 24 bytes, or so") == bound);
}

TEST_CASE("a mark that a stray write has raised does not lead beyond the table") {
  private_tables tables;
  table names(tables);
  const named bound = bind(names, "x");
  tables.mark = 1U << 20;
  CHECK(names.find("x") == bound);
  CHECK_FALSE(names.find("y"));
  CHECK_FALSE(names.settle(1));
  std::uint32_t seen = 0;
  names.each([&](const named&) { ++seen; });
  CHECK(seen == 1);
  CHECK(names.claim("x", 2, 4243, 0, [] {}).how == table::outcome::lost);
  CHECK(tables.looked_beyond == 0);
}

TEST_CASE("a process is at an entry from its claim until what it builds has ended") {
  private_tables tables;
  table names(tables);
  CHECK_FALSE(names.any_of(1));
  for (const name_state at : {name_state::filling, name_state::claiming, name_state::building}) {
    CAPTURE(static_cast<int>(at));
    tables.mark = 3;
    tables.words[2] = name_word{at, 1, 5}.bits();
    CHECK(names.any_of(1));
    CHECK_FALSE(names.any_of(0));
    CHECK_FALSE(names.any_of(2));
  }
  tables.words[2] = 0;
  for (const bool well : {true, false}) {
    const auto got = names.claim("x", 0, 4242, 0, [] {});
    CHECK(names.any_of(0));
    const named ended = well ? names.bind(got.mine, 7, 1, "text", 0) : names.fail(got.mine, "why", 0);
    CHECK_FALSE(names.any_of(0));  // READY and FAILED belong to no slot
    REQUIRE(names.vacate(ended));
  }
}

TEST_CASE("an entry that was reused has other contents") {
  private_tables tables;
  table names(tables);
  const named before = bind(names, "x");
  CHECK(names.content(before)->text == "text");
  REQUIRE(names.vacate(before));
  CHECK_FALSE(names.content(before));
  CHECK_FALSE(names.vacate(before));
  const named after = bind(names, "y");
  REQUIRE(after.entry == before.entry);
  CHECK_FALSE(names.content(before));
  CHECK(names.content(after)->name == "y");
}
