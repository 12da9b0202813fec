#pragma once

/// An arena as its participant in this process sees it: the parts that arena.cpp and its neighbours share.
///
/// Locks, all private to the process, taken in this order: `joining`, `repairing`, stripes by index, `pool`.
/// None is ever held over a call out of the library; fork takes them all.
#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <sharedmem/arena.hpp>
#include "os/census.hpp"
#include "os/identity.hpp"
#include "shared/layout.hpp"
#include "shared/protocol.hpp"

#include "heap/heap.hpp"
#include "heap/records.hpp"
#include "reports.hpp"
#include "shared/own_slot.hpp"
#include "shared/tables.hpp"

namespace sharedmem {

inline constexpr std::uint32_t stripe_count = 16;
inline constexpr std::uint64_t second_ns = 1'000'000'000;
/// How often the slow path looks for the dead, at most.
inline constexpr std::uint64_t look_interval_ns = second_ns / 10;

struct arena::state {
  explicit state(arena& self) noexcept : self(self), rules(words), pool(words, held) {}
  ~state() { leave_budget(); }

  arena& self;
  locator where;
  tables words;
  census attendance;
  protocol<native_atomics, tables> rules;
  records held;

  // Who this process is in the arena.
  own_slot identity;
  actor me;
  std::uint32_t user = 0;  // the effective user at birth
  std::uint32_t epoch = 0;
  std::uint32_t child_slot = ~std::uint32_t{0};  // reserved by prepare_fork
  bool child_overflows = false;

  std::mutex joining;  // for leave_overflow
  std::mutex repairing;
  zero_table<std::uint64_t> roll;  // under `repairing`: a word for each slot
  std::array<std::mutex, stripe_count> stripes;
  heap pool;

  // Until then nobody asks the system for memory again while all processes' claims stay below so many bytes.
  std::uint64_t look_holds_until = 0, claims_allowed = 0;

  std::atomic<std::uint64_t> last_expiry{0};
  std::atomic<std::uint64_t> last_look{0}, look_pause{look_interval_ns};
  std::atomic<std::uint64_t> references{0};  // records with a count: blocks of the protocol held here

  std::mutex& stripe(std::uint32_t b) noexcept { return stripes[b % stripe_count]; }
  std::array<std::unique_lock<std::mutex>, stripe_count> all_stripes();

  // birth.cpp
  void enter();

  // fork.cpp
  std::uint32_t reserve_slot() noexcept;
  bool reserve_slot_is_hopeless() const noexcept;
  void populate_descriptors(const slab& s) noexcept;
  std::uint32_t enter_overflow() noexcept;
  void claim_for(std::uint32_t child) noexcept;
  void let_go_after_fork() noexcept;
  bool fork_prepared = false;

  // linger.cpp
  std::uint32_t keeper_of = 0;  // pid of the process that has left one to linger here

  // budget.cpp
  void check_in_flight(std::uint64_t bytes);  // before a lease of so many bytes; \throws no_memory
  std::atomic<std::uint64_t> in_flight_limit{UINT64_MAX};
  std::atomic<std::uint64_t> in_flight_left{0};  // bytes that may be sent until somebody looks again

  // reports.cpp
  in_flight messages() noexcept;           // of all processes
  std::string in_flight_text();   // for an error: what messages keep; empty if there are none
  std::uint64_t resident() const noexcept;  // bytes of the arena's segments that are in memory

  // arena.cpp
  allocation allocate_slowly(std::uint64_t bytes, std::uint64_t alignment, pages how);
  void populate(slab& from, const allocation& a, std::uint64_t bytes, pages how) noexcept;
  void release_slowly(const block_ref& ref) noexcept;
  unsigned populate_threads = 1;

  // participants.cpp
  std::uint32_t slot() const noexcept { return identity.index(); }
  bool in_overflow() const noexcept { return slot() - words.overflow_slot() < overflow_slots; }
  bool has_slot() const noexcept { return slot() < words.overflow_slot(); }
  void settle();                     // at every entry: who are we, if a fork without handlers made us?
  void repair_earlier_programs();    // what this process held before it called exec
  /// A slot of our own. \throws no_memory all taken
  std::uint32_t take_slot(slot_state as = slot_state::active);
  void become(std::uint32_t s) noexcept { identity.become(s); }
  void leave_overflow();             // tries for a slot of our own
  std::uint32_t namespace_index();   // \throws no_memory the table is full
  liveness look(const actor& who) const noexcept;
  bool is_counted(const actor& who) const noexcept;
  template <class Pick>
  bool census_is(Pick&& expected) const noexcept;
  bool no_child_without_slot() const noexcept;
  bool only_we_are_left() const noexcept;
  bool exec_happened(const actor& who) const noexcept;
  void forget_chunks() noexcept;     // a child owns none of its parent's

  // repair.cpp
  bool look_for_dead(bool now);      // repairs; true if something was
  bool reserved_by_us(std::uint32_t s, const actor& who) const noexcept;
  bool repair_slot(std::uint32_t dead, std::uint64_t seen);  // false: not by us, or not now
  bool free_if_unclaimed(std::uint32_t b);       // stripe(b) held
  bool free_if_unclaimed(std::uint32_t b, std::uint32_t signer);
  bool on_arena_clock() const noexcept;
  std::uint64_t expire(bool now);                // leases whose grace is over
  template <class Expired>
  std::uint64_t end_leases(Expired&& expired);
  std::uint64_t revoke(std::uint64_t older_than_ns);
  bool take_back(std::uint32_t slot_of_dead);
  void clear_overflow(std::uint32_t k);
  bool stop_overflow(std::uint32_t k) noexcept;

  // blocks.cpp
  void after_free(std::uint32_t b, std::uint64_t place);
  bool may_keep(std::uint32_t b) const noexcept;
  void empty_pages(std::uint32_t b) noexcept;
  void drop_published(std::uint32_t b) noexcept; // stripe(b) held

  // room.cpp
  using held_lock = std::unique_lock<heap>;
  heap::taken take_small(std::uint32_t size_class, std::uint64_t asked, held_lock& lock);
  heap::taken take_run(std::uint32_t chunks, std::uint64_t asked, held_lock& lock);
  slab* obtain(std::uint32_t chunks, std::uint32_t size_class, std::uint64_t asked, held_lock& lock);
  void scrape_together(held_lock& lock);

  // budget.cpp
  std::uint64_t claimed_bytes() const noexcept;
  std::uint64_t promised_bytes() const noexcept;
  std::uint64_t promised_by_others() const noexcept;  // other arenas that this process has attached
  void enter_budget() noexcept;
  void leave_budget() noexcept;
  state* next_in_budget = nullptr;
  void reserve_memory(std::uint64_t bytes, std::uint64_t asked);  // \throws no_memory by the estimate
  [[noreturn]] void no_room(std::uint64_t asked, const std::string& why);
};

std::string size_text(std::uint64_t bytes);

}  // namespace sharedmem
