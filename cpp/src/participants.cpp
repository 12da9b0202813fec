/// Who takes part in an arena: slots, joining, telling the dead from the living.
#include <new>

#include "machine.hpp"
#include "state.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto sc = std::memory_order_seq_cst;

}  // namespace

std::uint32_t arena::state::namespace_index() {
  const process_namespaces here = this_namespaces();
  const std::uint64_t mine = std::uint64_t{here.pid} << 32 | here.time;
  // An entry of zero is free; namespaces that cannot be read share the entry 1.
  const std::uint64_t word = mine == 0 ? 1 : mine;
  for (std::uint32_t i = 0; i < max_namespaces; ++i) {
    std::uint64_t seen = words.head().namespaces[i].load(sc);
    if (seen == 0 && words.head().namespaces[i].compare_exchange_strong(seen, word, sc)) return i;
    if (seen == word) return i;
  }
  throw no_memory("processes of " + std::to_string(max_namespaces) +
                  " pid or time namespaces use this arena already, its limit; SHAREDMEM_ARENA=new gives this "
                  "process an arena of its own");
}

std::uint32_t arena::state::take_slot() {
  const process_id self_id = this_process();
  me = {self_id.pid, self_id.start, namespace_index()};
  const slot_word active{slot_state::active, me};
  header& h = words.head();
  for (int round = 0; round < 2; ++round) {
    for (std::uint32_t s = 0; s < words.overflow_slot(); ++s) {
      if (words.slot(s).ctl.load(relaxed) != 0) continue;
      std::uint64_t mark = h.slot_mark.load(sc);  // before the slot: it pairs with claimed()
      while (mark <= s && !h.slot_mark.compare_exchange_weak(mark, s + 1, sc)) {
      }
      std::uint64_t none = 0;
      if (!words.slot(s).ctl.compare_exchange_strong(none, active.bits(), sc)) continue;
      step<point::join_active>();
      words.slot(s).returns.store(0, relaxed);
      words.slot(s).cached.store(0, relaxed);
      words.slot(s).chunks.store(0, relaxed);
      words.slot(s).forking.store(0, relaxed);
      return s;
    }
    if (round == 0) look_for_dead(true);  // only repair can help
  }
  throw no_memory(
      "all " + std::to_string(words.overflow_slot()) +
      " process slots of this arena are taken (256 or four per core, fixed when the first process made "
      "it); end some processes, or give groups of them arenas of their own with SHAREDMEM_ARENA=new");
}

void arena::state::settle() {
  if (identity->slot_plus_one.load(relaxed) != 0) [[likely]]
    return;
  while (identity->settling.exchange(1, std::memory_order_acquire) != 0) yield_cpu();
  const struct settled {
    std::atomic<std::uint32_t>& at;
    ~settled() { at.store(0, std::memory_order_release); }
  } end{identity->settling};
  if (identity->slot_plus_one.load(relaxed) != 0) return;
  // A child that no fork handler announced: nothing here is ours, and locks may be held by threads that
  // do not exist in this process.
  new (&joining) std::mutex;
  new (&repairing) std::mutex;
  for (std::mutex& m : stripes) new (&m) std::mutex;
  new (&pool) std::mutex;
  words.forget_lock();
  forking.store(false, relaxed);
  ++epoch;  // references that were copied into this process are nobody's
  held.clear();
  references.store(0, relaxed);
  forget_chunks();
  become(take_slot());
}

void arena::state::forget_chunks() noexcept {
  // Slabs stay allocated: references of the parent's blocks point to them. They are never listed again.
  all_owned = nullptr;
  const std::uint64_t mark = words.head().chunk_mark.load(sc);  // nobody owns a chunk from there on
  for (std::uint64_t c = 0; c < mark && c < owned.size(); ++c)
    if (owned[c] != nullptr) owned[c] = nullptr;  // a table that is only read stays shared with the parent
  with_room.fill(nullptr);
  slabs_of_class.fill(0);
  cached_runs.clear();
  cached_bytes = 0;
  look_holds_until = 0;
  drop_caches();
}

std::array<std::unique_lock<std::mutex>, stripe_count> arena::state::all_stripes() {
  std::array<std::unique_lock<std::mutex>, stripe_count> locks;
  for (std::uint32_t i = 0; i < stripe_count; ++i) locks[i] = std::unique_lock(stripes[i]);
  return locks;
}

void arena::state::leave_overflow() {
  const std::lock_guard alone(joining);
  if (!in_overflow()) return;
  const std::uint32_t own = take_slot();
  const auto locks = all_stripes();
  // The overflow slot's bits still hold our blocks while ours are set.
  held.each_held([&](std::uint32_t b, const record& r) { rules.hold(b, own, r.generation); });
  become(own);
}

liveness arena::state::look(const actor& who) const noexcept {
  if (who == me) return liveness::alive;
  if (who.space != me.space) return liveness::unknown;
  return look_at({who.pid, who.start});
}

/// Whether an actor is surely one of those that the census counts. Exec keeps pid and start time, but not
/// the memory; what cannot be read proves nothing.
bool arena::state::is_counted(const actor& who) const noexcept {
  return who == me || (look(who) == liveness::alive && !is_exiting(who.pid) &&
                       maps_segment(who.pid, words.at(0).memory.name(), false));
}

/// Whether the census counts the actors that take part and that `expected` picks, each of them, and nobody else.
template <class Pick>
bool arena::state::census_is(Pick&& expected) const noexcept {
  if (!attendance) return false;
  std::array<actor, 256> seen;  // more than that, and it can wait
  std::uint32_t active = 0;
  const auto mark = static_cast<std::uint32_t>(words.slot_mark().load(sc));
  for (std::uint32_t s = 0; s < mark && s < words.overflow_slot(); ++s) {
    const auto w = slot_word::from(words.slot(s).ctl.load(sc));
    if (!takes_part(w.state) || !expected(w.who)) continue;
    if (active == seen.size()) return false;
    seen[active++] = w.who;
  }
  try {
    if (static_cast<std::uint32_t>(attendance.processes()) != active) return false;  // after the slots
  } catch (const error&) {
    return false;
  }
  return std::all_of(seen.begin(), seen.begin() + active,
                     [this](const actor& who) { return is_counted(who); });
}

/// Whether every process that can touch the arena has a slot.
bool arena::state::no_child_without_slot() const noexcept {
  return census_is([](const actor&) { return true; });
}

/// Whether every process that can touch the arena takes part in it and is of our namespaces. Of an actor in other
/// namespaces nothing can be told by its pid; if this holds it is gone.
bool arena::state::only_we_are_left() const noexcept {
  return census_is([this](const actor& who) { return who.space == me.space; });
}

/// An actor that is alive but no longer maps the arena: exec keeps pid and start time.
bool arena::state::exec_happened(const actor& who) const noexcept {
  if (who == me || who.space != me.space || look(who) != liveness::alive) return false;
  return !maps_segment(who.pid, words.at(0).memory.name(), true);
}

}  // namespace sharedmem
