#pragma once

/// What the table of names says, for reports, from inside an arena and from outside.
#include <cstdint>
#include <utility>
#include <vector>

#include <sharedmem/names.hpp>

#include "shared/layout.hpp"
#include "shared/name_table.hpp"
#include "shared/words.hpp"

namespace sharedmem {

constexpr name_status status_of(name_state s) noexcept {
  switch (s) {
    case name_state::building: return name_status::building;
    case name_state::ready: return name_status::ready;
    case name_state::failed: return name_status::failed;
    default: return name_status::none;
  }
}

constexpr std::uint64_t age_of(std::uint64_t since, std::uint64_t now) noexcept {
  return since != 0 && since < now ? now - since : 0;
}

/// Names, except those whose blocks were freed. `block(b)`: the words of a descriptor; nullptr: it cannot be read here.
/// `pid_of(slot)`: of the process that has it; 0: none. `now`: 0 if the arena has another clock.
template <class Tables, class Block, class Pid>
std::vector<name_report> report_names(Tables& tables, std::uint32_t slots, Block&& block, Pid&& pid_of,
                                      std::uint64_t now) {
  std::vector<name_report> all;
  name_table<native_atomics, Tables> names(tables);
  names.each([&](const named& at) {
    auto c = names.content(at);
    if (!c) return;
    name_report r{std::move(c->name),
                  status_of(at.word.state),
                  std::move(c->text),
                  static_cast<std::uint32_t>(c->claimer),
                  age_of(c->since, now),
                  {},
                  false};
    if (r.what == name_status::ready) {
      auto* d = block(static_cast<std::uint32_t>(c->block));
      if (d != nullptr) {
        const auto life = life_word::from(d[at_life].load(std::memory_order_seq_cst));
        if (life.generation != c->generation || life.state == life_state::free ||
            life.state == life_state::emptying)
          return;
        r.holders_known = true;
        for (std::uint32_t s = 0; s < slots; ++s)
          if ((d[at_holders + s / 64].load(std::memory_order_relaxed) >> s % 64 & 1) != 0)
            if (const std::uint32_t pid = pid_of(s); pid != 0) r.holders.push_back(pid);
      }
    }
    all.push_back(std::move(r));
  });
  return all;
}

}  // namespace sharedmem
