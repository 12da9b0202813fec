#pragma once

/// An arena as its participant in this process sees it: the layers that it is made of, and what the policy in
/// arena.cpp and its neighbours keeps besides.
///
/// Locks: those of the layers.
#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>

#include <sharedmem/arena.hpp>

#include "heap/heap.hpp"
#include "heap/records.hpp"
#include "members/membership.hpp"
#include "members/participants.hpp"
#include "members/repair.hpp"
#include "references/references.hpp"
#include "reports.hpp"
#include "shared/name_table.hpp"
#include "shared/own_slot.hpp"
#include "shared/tables.hpp"

namespace sharedmem {

inline constexpr std::uint64_t second_ns = 1'000'000'000;

inline constexpr std::uint64_t smallest_arena = std::uint64_t{32} << 20;
/// Bytes of a new arena's first segment: those wished for, or the default (0), within the address space left.
std::uint64_t arena_size(std::uint64_t wish) noexcept;

struct arena::state {
  explicit state(arena& self) noexcept
      : self(self),
        names(words),
        pool(words, held),
        refs(words, held, pool, identity),
        peers(words, identity),
        repairs(words, refs, peers),
        member(words, identity, pool, refs, peers, repairs) {}
  ~state() { leave_budget(); }

  arena& self;
  locator where;
  std::uint32_t user = 0;  // the effective user at birth

  // The layers below, each with its own locks (cpp/README.rst), from the lowest to the highest.
  tables words;
  name_table<native_atomics, tables> names;
  own_slot identity;
  records held;
  heap pool;
  references refs;
  participant_table peers;
  repairer repairs;
  membership member;

  // The available memory, as the system reported it, is cached. It is used until `look_holds_until` (monotonic_ns), as
  // long as the chunks that all processes have claimed are no more than `claims_allowed` bytes.
  std::uint64_t look_holds_until = 0, claims_allowed = 0;

  // lifecycle.cpp
  void enter();
  /// At every entry: a child that was forked without handlers joins. \throws no_memory  all slots are taken.
  void join_if_forked();

  // linger.cpp
  std::uint32_t keeper_of = 0;  // pid of the process that has left one to linger here

  // budget.cpp
  void check_in_flight(std::uint64_t bytes);  // before a lease for that many bytes; \throws no_memory
  std::atomic<std::uint64_t> in_flight_limit{UINT64_MAX};
  std::atomic<std::uint64_t> in_flight_left{0};  // bytes that may be sent before the next examination

  // reports.cpp
  in_flight messages() noexcept;           // of all processes
  std::string in_flight_text();   // for an error: what messages keep; empty if there are none
  std::uint64_t resident() const noexcept;  // bytes of the arena's segments that are in memory

  // arena.cpp
  allocation allocate_slowly(std::uint64_t bytes, std::uint64_t alignment, pages how);
  void populate(slab& from, const allocation& a, std::uint64_t bytes, pages how) noexcept;
  void release_slowly(const block_ref& ref) noexcept;

  // room.cpp
  using held_lock = std::unique_lock<heap>;
  heap::taken take_small(std::uint32_t size_class, std::uint64_t asked, held_lock& lock);
  heap::taken take_run(std::uint32_t chunks, std::uint64_t asked, held_lock& lock);
  slab* obtain(std::uint32_t chunks, std::uint32_t size_class, std::uint64_t asked, held_lock& lock);
  void scrape_together(held_lock& lock, std::uint32_t chunks, bool messages);

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
