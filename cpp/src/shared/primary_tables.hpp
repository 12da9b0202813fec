#pragma once

/// The tables of an arena's primary segment, wherever that is mapped: what can be read of an arena without
/// taking part in it.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "shared/layout.hpp"
#include "shared/lease_table.hpp"

namespace sharedmem {

/// A plain value that refers to the mapped segment and to nothing else.
struct primary_tables {
  using word = native_atomics::word;

  std::byte* base;

  header& head() const noexcept { return *reinterpret_cast<header*>(base); }

  // Required by lease_table.hpp.
  word* lease(std::uint32_t i) const noexcept {
    return reinterpret_cast<lease_words*>(base + head().at_leases)[i].words;
  }
  word& lease_mark(std::uint32_t g) const noexcept { return head().lease_marks[g * 8]; }
  std::uint32_t lease_group_entries() const noexcept { return head().lease_entries; }

  // Required by name_table.hpp.
  name_entry* names() const noexcept { return reinterpret_cast<name_entry*>(base + head().at_names); }
  word& name(std::uint32_t i) const noexcept { return names()[i].word; }
  word& name_hash(std::uint32_t i) const noexcept { return names()[i].hash; }
  word* name_fields_of(std::uint32_t i) const noexcept {
    return reinterpret_cast<name_fields*>(names() + head().names)[i].words;
  }
  word& names_mark() const noexcept { return head().names_mark; }
  std::uint32_t name_count() const noexcept { return head().names; }

  /// Calls f(entry, lease_word, words) for every lease below its group's mark.
  template <class F>
  void each_lease(F&& f) {
    lease_table<native_atomics, primary_tables>(*this).each(f);
  }
  participant_entry& slot(std::uint32_t s) const noexcept {
    return reinterpret_cast<participant_entry*>(base + head().at_participants)[s];
  }
  /// Calls f(participant_entry) for every slot that was ever used, except the overflow slots, which are the last ones.
  template <class F>
  void each_slot(F&& f) const {
    const auto mark = std::min<std::uint64_t>(head().slot_mark.load(std::memory_order_seq_cst),
                                              head().slots - overflow_slots);
    for (std::uint32_t k = 0; k < mark; ++k) f(slot(k));
  }
};

}  // namespace sharedmem
