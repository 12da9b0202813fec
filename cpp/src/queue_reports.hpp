#pragma once

/// The queues in an arena, for reports, from inside it and from outside. Nothing lists them: each one keeps the lease of
/// its ring, and a lease that a block keeps names that block.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <sharedmem/queue.hpp>

#include "name_reports.hpp"
#include "queue_layout.hpp"
#include "shared/lease_table.hpp"
#include "shared/words.hpp"

namespace sharedmem {

/// A lease that a queue keeps.
struct kept_lease {
  std::uint64_t keeper;  // `kept_by`
  std::uint64_t what;    // block and generation of the lease
  std::uint64_t bytes;
};

/// Fills in what the block of a queue says. `kept`: the leases that it keeps.
void read_queue(const queue::layout& at, std::span<const kept_lease> kept, std::uint64_t now,
                queue_report& found);

/// Queues, oldest first. `block(b)`: the words of a descriptor; nullptr: it cannot be read here. `data(b, place)`: the
/// bytes of that block, as many as a queue has; nullptr: the same. `pid_of(slot)`: of the process that has it and lives;
/// 0: none. `now`: 0 if the arena has another clock.
template <class Leases, class Block, class Data, class Pid>
std::vector<queue_report> report_queues(Leases& leases, std::uint32_t slots, Block&& block, Data&& data,
                                        Pid&& pid_of, std::uint64_t now) {
  constexpr auto relaxed = std::memory_order_relaxed;
  std::vector<kept_lease> all;
  leases.each([&](std::uint32_t, lease_word v, auto* e) {
    const std::uint64_t keeper = e[at_clock].load(relaxed);
    if (v.state == lease_state::out && v.slot == kept && (keeper & keeper_mark) != 0)
      all.push_back({keeper, e[at_what].load(relaxed), e[at_lease_bytes].load(relaxed) & ~copied_message});
  });
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.keeper < b.keeper; });

  std::vector<std::uint32_t> pids(slots, UINT32_MAX);  // by slot, once it was looked up
  std::vector<queue_report> found;
  for (auto first = all.begin(); first != all.end();) {
    const std::uint64_t keeper = first->keeper;
    const auto end = std::find_if(first, all.end(), [&](const auto& k) { return k.keeper != keeper; });
    const std::span<const kept_lease> own{first, end};
    first = end;
    queue_report r;
    r.block = static_cast<std::uint32_t>((keeper & ~keeper_mark) >> 32);
    auto* d = block(r.block);
    if (d != nullptr) {
      for (std::uint32_t s = 0; s < slots; ++s) {
        if ((d[at_holders + s / 64].load(relaxed) >> s % 64 & 1) == 0) continue;
        if (pids[s] == UINT32_MAX) pids[s] = pid_of(s);
        if (pids[s] != 0) r.holders.push_back(pids[s]);
      }
      const std::byte* at = data(r.block, d[at_place].load(relaxed));
      if (at != nullptr) read_queue(*reinterpret_cast<const queue::layout*>(at), own, now, r);
      // Looked at last: a block that lives now has lived since it kept these. Others' leases go with the next `expire`.
      const auto life = life_word::from(d[at_life].load(std::memory_order_seq_cst));
      if (life.state == life_state::free || life.state == life_state::emptying ||
          kept_by(r.block, life.generation) != keeper)
        continue;
    }
    if (!r.readable)
      for (const kept_lease& k : own) r.kept_bytes += k.bytes;
    found.push_back(std::move(r));
  }
  std::sort(found.begin(), found.end(), [](const queue_report& a, const queue_report& b) {
    return std::pair(b.age_ns, a.block) < std::pair(a.age_ns, b.block);
  });
  return found;
}

}  // namespace sharedmem
