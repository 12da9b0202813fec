#include <doctest.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include <sharedmem/arena.hpp>
#include "shared/layout.hpp"

#include "arena_tools.hpp"

using namespace sharedmem;

// Inaccessible pages end an overrun of an array before the tables, in mappings of every process.

TEST_CASE("an overrun ends before the tables and before the data, on kernels with pages of any size") {
  for (const std::uint64_t bytes : {tiny, 64 * 1024 * mib, 19 * 4096 * mib})
    for (const std::uint32_t slots : {256U, 1024U}) {
      const auto whole = geometry_plan::primary(bytes, slots, descriptor_bytes_for(slots));
      const auto more = geometry_plan::extension(7, descriptor_bytes_for(slots));
      const std::uint64_t leases =
          whole.at_leases + std::uint64_t{lease_group_count} * whole.lease_entries * sizeof(lease_words);
      CHECK(whole.at_descriptors - guard_bytes >= leases);
      CHECK(more.at_descriptors - guard_bytes >= sizeof(extent_header));
      for (const auto& plan : {whole, more}) {
        const std::uint64_t table =
            std::uint64_t{plan.chunks} * descriptors_per_chunk * descriptor_bytes_for(slots);
        CHECK(plan.at_descriptors % guard_bytes == 0);
        CHECK(plan.at_data % guard_bytes == 0);
        CHECK(plan.at_data - guard_bytes >= plan.at_descriptors + table);
      }
    }
}

TEST_CASE("the pages before the descriptors and before the data cannot be touched") {
  const auto a = arena::create(tiny);
  allocation first = a->allocate(4 * mib, 64, pages::lazy);  // at the beginning of the data
  std::vector<std::pair<std::uintptr_t, std::uintptr_t>> guards;
  std::ifstream maps{"/proc/self/maps"};
  for (std::string line; std::getline(maps, line);) {
    unsigned long from = 0, to = 0;
    char rights[8] = {};
    if (line.find("/SYSV534d") == std::string::npos && line.find("/memfd:sharedmem") == std::string::npos)
      continue;
    if (std::sscanf(line.c_str(), "%lx-%lx %7s", &from, &to, rights) != 3) continue;
    if (std::string(rights) == "---s") guards.emplace_back(from, to);
  }
  REQUIRE(guards.size() == 2);
  for (const auto& [from, to] : guards) CHECK(to - from == guard_bytes);
  CHECK(guards[1].second == reinterpret_cast<std::uintptr_t>(first.data));
  child overrun{[&] {
    ::signal(SIGSEGV, SIG_DFL);  // no report of what is meant to happen
    *const_cast<volatile std::byte*>(first.data - 1) = std::byte{1};
    return 0;
  }};
  CHECK(overrun.wait() == -SIGSEGV);
  a->release(first.ref);
}
