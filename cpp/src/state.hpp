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
#include <sharedmem/census.hpp>
#include <sharedmem/identity.hpp>
#include <sharedmem/layout.hpp>
#include <sharedmem/protocol.hpp>

#include "records.hpp"
#include "reports.hpp"
#include "slab.hpp"
#include "tables.hpp"
#include "thread_cache.hpp"
#include "zero_table.hpp"

namespace sharedmem {

inline constexpr std::uint32_t stripe_count = 16;
inline constexpr std::uint64_t second_ns = 1'000'000'000;
/// How often the slow path looks for the dead, at most.
inline constexpr std::uint64_t look_interval_ns = second_ns / 10;

struct arena::state {
  explicit state(arena& self) noexcept : self(self), rules(words) {}
  ~state();

  arena& self;
  locator where;
  tables words;
  census attendance;
  protocol<native_atomics, tables> rules;
  records held;

  // Who this process is in the arena.
  identity_page* identity = nullptr;
  actor me;
  std::uint32_t epoch = 0;
  std::uint32_t child_slot = ~std::uint32_t{0};  // reserved by prepare_fork
  bool child_overflows = false;

  std::mutex joining;  // for leave_overflow
  std::mutex repairing;
  std::array<std::mutex, stripe_count> stripes;
  std::mutex pool;

  // Under `pool`: the chunks that this process owns.
  zero_table<slab*> owned;  // by chunk; heads and last chunks of runs
  slab* all_owned = nullptr;
  std::array<slab*, class_count> with_room{};
  std::array<std::uint32_t, class_count> slabs_of_class{};
  std::set<std::pair<std::uint32_t, std::uint32_t>> cached_runs;  // length, head chunk
  std::uint64_t cached_bytes = 0;
  std::uint64_t repairs_seen = 0;
  // Until then nobody asks the system for memory again while all processes' claims stay below so many bytes.
  std::uint64_t look_holds_until = 0, claims_allowed = 0;
  std::vector<thread_cache*> caches;
  bool caches_usable = false;

  std::atomic<bool> forking{false};
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
  bool enter_overflow() noexcept;
  void claim_for(std::uint32_t child);
  void let_go_after_fork() noexcept;
  bool fork_prepared = false;

  // budget.cpp
  void check_in_flight(std::uint64_t bytes);  // before a lease of so many bytes; \throws no_memory
  std::atomic<std::uint64_t> in_flight_limit{UINT64_MAX};
  std::atomic<std::uint64_t> in_flight_left{0};  // bytes that may be sent until somebody looks again

  // reports.cpp
  in_flight messages() noexcept;           // of all processes
  std::string in_flight_text();   // for an error: what messages keep; empty if there are none
  bool leases_out() noexcept;
  bool others_present() const noexcept;
  bool sent_from_extension() noexcept;
  std::uint64_t resident() const noexcept;  // bytes of the arena's segments that are in memory

  // arena.cpp
  allocation allocate_slowly(std::uint64_t bytes, std::uint64_t alignment, pages how);
  void populate(slab& from, const allocation& a, std::uint64_t bytes, pages how) noexcept;
  void release_slowly(const block_ref& ref) noexcept;
  unsigned populate_threads = 1;

  // participants.cpp
  std::uint32_t slot() const noexcept { return identity->slot_plus_one.load(std::memory_order_relaxed) - 1; }
  bool in_overflow() const noexcept { return slot() == words.overflow_slot(); }
  bool has_slot() const noexcept { return slot() < words.overflow_slot(); }
  void settle();                     // at every entry: who are we, if a fork without handlers made us?
  std::uint32_t take_slot();         // a slot of our own; \throws no_memory all taken
  void become(std::uint32_t s) noexcept { identity->slot_plus_one.store(s + 1, std::memory_order_relaxed); }
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
  void repair_slot(std::uint32_t dead, std::uint64_t seen);
  bool free_if_unclaimed(std::uint32_t b);       // stripe(b) held
  bool free_if_unclaimed(std::uint32_t b, std::uint32_t signer);
  bool on_arena_clock() const noexcept;
  std::uint64_t expire(bool now);                // leases whose grace is over
  void take_back(std::uint32_t slot_of_dead);
  void clear_overflow();
  bool stop_overflow() noexcept;

  // blocks.cpp
  void after_free(std::uint32_t b, std::uint64_t place);
  bool may_keep(std::uint32_t b) const noexcept;
  void empty_pages(std::uint32_t b) noexcept;
  void drop_published(std::uint32_t b) noexcept; // stripe(b) held

  // pool.cpp, all under `pool`
  struct taken {
    slab* owner = nullptr;
    std::uint32_t index = 0;
    bool zeroed = false;
  };
  using held_lock = std::unique_lock<std::mutex>;
  taken take_small(std::uint32_t size_class, std::uint64_t asked, held_lock& lock);
  taken take_run(std::uint32_t chunks, std::uint64_t asked, held_lock& lock);
  slab* obtain(std::uint32_t chunks, std::uint32_t size_class, std::uint64_t asked, held_lock& lock);
  void scrape_together(held_lock& lock);
  taken pop(slab& s) noexcept;
  void put(slab& s, std::uint32_t index) noexcept;
  void drop_unshared(slab& s, std::uint32_t index) noexcept;
  void dissolve_if_free(slab& s, bool even_the_last) noexcept;
  void list_if_free(std::uint32_t b, std::uint32_t chunk) noexcept;
  bool sweep_returns() noexcept;
  void sweep_all() noexcept;
  void sweep(slab& s) noexcept;
  void cut(slab* run, std::uint32_t size_class);
  void fill(magazine& m, std::uint32_t size_class) noexcept;
  void flush(magazine& m, std::uint32_t keep) noexcept;
  void link(slab& s) noexcept;
  void unlink(slab& s) noexcept;

  // runs.cpp, all under `pool`
  using run_node = decltype(cached_runs)::node_type;
  void cache_run(slab* run, run_node node = {}) noexcept;
  bool list_cached(slab*& run, run_node node) noexcept;
  slab* uncache(std::uint32_t chunks);
  bool empty_run(const slab& run) noexcept;
  run_node remove_cached(slab* run) noexcept;
  std::uint64_t limit_cache(std::uint64_t bytes) noexcept;
  void give_back_fragments(std::uint64_t bytes) noexcept;
  void note_cached() noexcept;
  std::uint64_t cached_everywhere() const noexcept;
  bool is_cached_run(const slab* s) const noexcept;

  // chunks.cpp, all under `pool`
  slab* claim_fresh(std::uint32_t chunks);       // nullptr: no room in the attached extents
  bool adopt_orphans();
  void adopt(std::uint32_t chunk);
  void ensure_descriptors(std::uint32_t chunk, std::uint32_t count);
  slab* new_run(std::uint32_t chunk, std::uint32_t chunks);
  slab* split(slab* run, std::uint32_t chunks);  // returns the tail
  slab* merge(slab* left, slab* right) noexcept;
  void unclaim(slab* run) noexcept;
  void own(slab* s) noexcept;
  void disown(slab* s) noexcept;

  // caches.cpp
  void enter_caches();
  thread_cache* ready_cache() noexcept;  // of this thread, made ready; nullptr: none to be had. `pool` held
  void flush_idle_caches() noexcept;
  void stop_threads() noexcept;  // no thread is in its cache until resume_threads
  void resume_threads() noexcept;
  void drop_caches() noexcept;

  // budget.cpp
  std::uint64_t claimed_bytes() const noexcept;
  void reserve_memory(std::uint64_t bytes, std::uint64_t asked);  // \throws no_memory by the estimate
  [[noreturn]] void no_room(std::uint64_t asked, const std::string& why);
};

std::string size_text(std::uint64_t bytes);

}  // namespace sharedmem
