/// The orderly end of a process: messages that it, or others, have sent must not be lost with it.
///
/// The kernel removes an arena with the last process that has it attached. A process that ends marks its slot ENDING in
/// every arena, then checks: if a message is unread and all other participants have begun to end, it leaves a small
/// process behind that keeps the arena. Of several that end at the same moment the last one to mark itself sees all
/// others marked. That process takes the slot over as it is, since the census counts it; others do not rely on it either.
/// Model: doc/model/ending.pml.
#include <algorithm>
#include <cstdlib>
#include <new>
#include <stdexcept>

#include <sharedmem/home.hpp>

#include "arena_hooks.hpp"
#include "members/last_look.hpp"
#include "os/lingering.hpp"
#include "os/machine.hpp"
#include "os/pages.hpp"
#include "os/traits.hpp"
#include "settings.hpp"
#include "shared/fault.hpp"
#include "state.hpp"

namespace sharedmem {
namespace {

constexpr unsigned pause_ms = 20, longest_pause_ms = 500;

double seconds_or_default() {
  try {
    return linger_seconds();
  } catch (const std::invalid_argument&) {
    return 10;  // it was set after the arena was made, which would have rejected it
  }
}

/// What the lingering process does: async-signal-safe calls only.
[[noreturn]] void keep(std::span<last_look> arenas, double seconds) noexcept {
  // The ending process may still run for a while, and its threads may send. Reading its mappings takes long.
  for (unsigned ms = pause_ms;
       std::all_of(arenas.begin(), arenas.end(), [](const last_look& each) { return each.in_use(); });
       ms = std::min(2 * ms, longest_pause_ms))
    sleep_ms(ms);
  for (last_look& each : arenas) each.take_over_slot();
  const std::uint64_t end = monotonic_ns() + static_cast<std::uint64_t>(seconds * 1e9);
  while (monotonic_ns() < end &&
         std::any_of(arenas.begin(), arenas.end(), [](last_look& each) { return each.must_linger(); }))
    sleep_ms(pause_ms);
  exit_now();
}

/// Where no process can be forked, the ending process itself waits until others have read what was sent. Often another
/// program waits for its end, so it does not wait long.
[[maybe_unused]] void stay(std::span<last_look> arenas, double seconds) noexcept {
  constexpr double longest = 2;
  const std::uint64_t end = monotonic_ns() + static_cast<std::uint64_t>(std::min(seconds, longest) * 1e9);
  while (monotonic_ns() < end &&
         std::any_of(arenas.begin(), arenas.end(), [](last_look& each) { return each.must_linger(); }))
    sleep_ms(pause_ms);
}

template <class T>
kept_range pages_of(const std::vector<T>& values) noexcept {
  return kept_range::of(values.data(), values.size() * sizeof(T), false);
}

[[maybe_unused]] void leave_a_process(kept_arenas& kept, double seconds) {
  keep_what_runs(__builtin_frame_address(0), kept.memory);
  kept.memory.push_back(pages_of(kept.arenas));
  kept.memory.reserve(kept.memory.size() + 1);
  kept.memory.push_back(
      kept_range::of(kept.memory.data(), kept.memory.capacity() * sizeof(kept_range), false));
  std::sort(kept.memory.begin(), kept.memory.end(),
            [](const kept_range& a, const kept_range& b) { return a.begin < b.begin; });
  std::sort(kept.descriptors.begin(), kept.descriptors.end());
  const std::span<last_look> arenas = kept.arenas;
  if (fork_to_linger()) {
    step<point::linger_started>();
    keep_only(kept.memory, kept.descriptors);
    keep(arenas, seconds);
  }
  step<point::linger_forked>();
}

}  // namespace

void arena_hooks::begin_to_end(arena& a) noexcept {
  arena::state& s = *a.s_;
  if (!s.peers.has_slot()) return;  // in the overflow slot: others do not rely on this process
  std::uint64_t active = slot_word{slot_state::active, s.peers.me()}.bits();
  s.words.slot(s.peers.slot())
      .ctl.compare_exchange_strong(active, slot_word{slot_state::ending, s.peers.me()}.bits(),
                                   std::memory_order_seq_cst);
  step<point::ending_marked>();
}

void arena_hooks::go_on(arena& a) noexcept {
  arena::state& s = *a.s_;
  if (!s.peers.has_slot()) return;
  s.keeper_of = 0;
  std::uint64_t ending = slot_word{slot_state::ending, s.peers.me()}.bits();
  s.words.slot(s.peers.slot())
      .ctl.compare_exchange_strong(ending, slot_word{slot_state::active, s.peers.me()}.bits(),
                                   std::memory_order_seq_cst);
}

void arena_hooks::keep_if_needed(arena& a, kept_arenas& kept) {
  arena::state& s = *a.s_;
  if (!s.identity.known() || s.keeper_of == s.peers.me().pid) return;
  const tables& words = s.words;
  last_look look{{words.at(0).memory.data()},
                 s.peers.me(),
                 s.peers.slot(),
                 words.at(0).blocks,
                 words.at(0).memory.name()};
  if (!look.leases_out()) return;
  s.repairs.look_for_dead(true);  // the only way to notice processes that have called exec since
  if (!look.must_linger()) return;
  for (std::uint32_t k = 0; k < words.extents(); ++k) {
    const mapping& memory = words.at(k).memory;
    if (memory.size() == 0) continue;  // lost
    kept.memory.push_back(kept_range::of(memory.data(), memory.size(), true));
    if (memory.name().kind == backing::memfd) kept.descriptors.push_back(memory.name().id);
  }
  if (s.peers.attendance)
    kept.memory.push_back(kept_range::of(s.peers.attendance.data(), os::page_size(), true));
  kept.arenas.push_back(look);
  s.keeper_of = s.peers.me().pid;
}

void linger() noexcept {
  const attached_arenas all;  // keeps all arenas attached meanwhile
  try {
    for (arena* a : all) arena_hooks::begin_to_end(*a);
    const double seconds = seconds_or_default();
    if (seconds <= 0) return;
    kept_arenas kept;
    for (arena* a : all) arena_hooks::keep_if_needed(*a, kept);
    if (kept.arenas.empty()) return;
    if constexpr (os::has_fork)
      leave_a_process(kept, seconds);
    else
      stay(kept.arenas, seconds);
  } catch (const std::bad_alloc&) {  // no memory to keep anything with
  }
}

void go_on() noexcept {
  const attached_arenas all;
  for (arena* a : all) arena_hooks::go_on(*a);
}

void linger_at_exit() noexcept { (void)std::atexit(linger); }

}  // namespace sharedmem
