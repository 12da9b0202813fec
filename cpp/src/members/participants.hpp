#pragma once

/// Who participates in an arena: which slot belongs to whom, who this process is, and whether others are alive.
///
/// Locks: none. Functions that read the census use a list of this object, so only one thread at a time may call them:
/// the one that has the lock of `repairer`.
/// Processes: a forked child is another participant than its parent (`identify`).
#include <cstdint>

#include "heap/zero_table.hpp"
#include "os/census.hpp"
#include "os/identity.hpp"
#include "shared/own_slot.hpp"
#include "shared/tables.hpp"

namespace sharedmem {

class participant_table {
 public:
  participant_table(tables& words, const own_slot& self) noexcept : words(words), identity(self) {}
  participant_table(const participant_table&) = delete;
  participant_table& operator=(const participant_table&) = delete;

  /// Called once, when `words` is open and before any other function. \throws std::bad_alloc
  void open() { roll.reserve(words.slots()); }

  /// Counts the processes that can touch the arena. Empty: there is no such count in this arena.
  census attendance;

  // ---- this process

  /// This process, as in the words of slots.
  const actor& me() const noexcept { return me_; }
  /// Reads from the system who this process is.
  /// \throws no_memory  the arena's table of namespaces is full; `me` keeps its previous namespaces then.
  void identify();
  /// \pre  The slot is known. The same for the next two.
  std::uint32_t slot() const noexcept { return identity.index(); }
  bool has_slot() const noexcept { return words.is_own(slot()); }
  /// Whether it shares its slot with other children for which no slot of their own was free.
  bool in_overflow() const noexcept { return words.is_overflow(slot()); }

  // ---- others

  liveness look(const actor& who) const noexcept;
  bool exec_happened(const actor& who) const noexcept;
  bool no_child_without_slot() const noexcept;
  bool only_we_are_left() const noexcept;

 private:
  std::uint32_t namespace_index();
  bool is_counted(const actor& who) const noexcept;
  template <class Pick>
  bool census_is(Pick&& expected) const noexcept;

  tables& words;
  const own_slot& identity;
  actor me_;
  zero_table<std::uint64_t> roll;  // a word for each slot
};

}  // namespace sharedmem
