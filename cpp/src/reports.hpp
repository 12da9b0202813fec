#pragma once

/// What both ways of looking at an arena have in common: from within (reports.cpp), and from outside
/// (inspect.cpp).
#include <cstdint>
#include <vector>

#include <sharedmem/arena.hpp>
#include "shared/layout.hpp"
#include "shared/lease_table.hpp"

namespace sharedmem {

/// Leases that are out: how many, what they keep, since when.
struct in_flight {
  std::uint64_t leases = 0;
  std::uint64_t bytes = 0;
  std::uint64_t oldest_ns = 0;

  /// \param entry  words of a lease whose word was `v`.
  /// \param now  by the arena's clock; 0: this process has another one.
  void add(const lease_word& v, const word64* entry, std::uint64_t now) noexcept {
    ++leases;
    bytes += entry[at_lease_bytes].load(std::memory_order_relaxed) & ~copied_message;
    std::uint64_t since = entry[at_clock].load(std::memory_order_relaxed);
    // The clock of a lease OUT(nobody) is its deadline: it counts from the moment its sender was found dead.
    if (v.slot == nobody) since = since > lease_grace_ns ? since - lease_grace_ns : 0;
    if (since != 0 && since < now && now - since > oldest_ns) oldest_ns = now - since;
  }
};

/// The participant in a slot that is not empty. `gone`: its process is known to be dead, or to run another
/// program.
participant_report report_of(std::uint32_t slot, const participant_entry& entry, const slot_word& seen,
                             bool gone) noexcept;

/// Adds to each participant what its messages keep.
template <class Leases>
void count_messages(Leases& leases, std::vector<participant_report>& all, std::uint64_t now) {
  if (all.empty()) return;
  std::vector<in_flight> of_slot(all.back().slot + 1);  // slots ascend
  leases.each([&](std::uint32_t, lease_word v, auto* e) {
    if (v.state == lease_state::out && v.slot < of_slot.size()) of_slot[v.slot].add(v, e, now);
  });
  for (participant_report& p : all) {
    p.leases = of_slot[p.slot].leases;
    p.bytes_in_flight = of_slot[p.slot].bytes;
    p.oldest_in_flight_ns = of_slot[p.slot].oldest_ns;
  }
}

}  // namespace sharedmem
