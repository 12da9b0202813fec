#pragma once

/// Reads from an arena's tables, at the end of a process, whether messages are unread.
#include <cstdint>

#include <vector>

#include <sharedmem/segment.hpp>

#include "os/identity.hpp"
#include "os/lingering.hpp"
#include "shared/primary_tables.hpp"
#include "shared/words.hpp"

namespace sharedmem {

/// A plain value that refers to the primary segment and to nothing else, so that a lingering process, which has
/// given back its private memory, can look. Async-signal-safe.
struct last_look {
  primary_tables tables;
  actor me;                           // the process that ends
  std::uint32_t slot;                 // its slot
  std::uint32_t first_extended_block;  // blocks from there on lie in extension segments
  segment_name primary;                // the arena's primary segment

  /// Leases that a block keeps do not count: only a process that holds that block reads its messages.
  bool leases_out() noexcept {
    bool any = false;
    tables.each_lease([&](std::uint32_t, lease_word v, auto*) {
      any = any || (v.state == lease_state::out && v.slot != kept);
    });
    return any;
  }

  /// Whether the arena is needed and it is not certain that another process keeps it: all other participants have
  /// begun to end, or a message of this process uses a block in an extension, which perhaps no other has attached.
  bool must_linger() noexcept { return (leases_out() && !others_stay()) || sent_from_extension(); }

  /// Whether the process that ends still uses the arena: it is alive, and has not become another program. That
  /// program may have joined the arena, but then it has repaired the slot.
  bool in_use() const noexcept {
    const bool repaired =
        slot < tables.head().slots - overflow_slots &&
        tables.slot(slot).ctl.load(std::memory_order_seq_cst) != slot_word{slot_state::ending, me}.bits();
    return !repaired && look_at({me.pid, me.start}) == liveness::alive && maps_segment(me.pid, primary, true);
  }

  /// In the lingering process, after the end of the one that it was forked from: ENDING(me) -> ENDING(this process),
  /// unless another process has begun to repair the slot.
  void take_over_slot() const noexcept {
    const process_id self = this_process();
    std::uint64_t seen = slot_word{slot_state::ending, me}.bits();
    const slot_word mine{slot_state::ending, {self.pid, self.start, me.space}};
    tables.slot(slot).ctl.compare_exchange_strong(seen, mine.bits(), std::memory_order_seq_cst);
  }

 private:
  bool others_stay() const noexcept {
    bool any = false;
    tables.each_slot([&](const participant_entry& e) {
      const auto w = slot_word::from(e.ctl.load(std::memory_order_seq_cst));
      any = any || (w.state == slot_state::active && !is_dead(w.who));
    });
    return any;
  }
  bool is_dead(const actor& who) const noexcept {
    return who.space == me.space && look_at({who.pid, who.start}) == liveness::dead;
  }
  bool sent_from_extension() noexcept {
    bool any = false;
    tables.each_lease([&](std::uint32_t, lease_word v, auto* e) {
      any = any || (v.state == lease_state::out && v.slot == slot &&
                    (e[at_what].load(std::memory_order_relaxed) >> 32) >= first_extended_block);
    });
    return any;
  }
};

/// What a lingering process keeps of the process that it was forked from.
struct kept_arenas {
  std::vector<last_look> arenas;
  std::vector<kept_range> memory;
  std::vector<int> descriptors;  // of memfd segments: others attach these by them
};

}  // namespace sharedmem
