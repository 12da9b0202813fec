/// Who participates in an arena: slots, joining, distinguishing dead from living processes.
#include "members/participants.hpp"

#include <algorithm>
#include <string>

#include <sharedmem/error.hpp>

#include "members/membership.hpp"
#include "shared/raise_mark.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto sc = std::memory_order_seq_cst;

}  // namespace

void participant_table::identify() {
  const process_id self = this_process();
  me_ = {self.pid, self.start, me_.space};
  me_.space = namespace_index();
}

std::uint32_t participant_table::namespace_index() {
  const process_namespaces here = this_namespaces();
  const std::uint64_t mine = std::uint64_t{here.pid} << 32 | here.time;
  // An entry of zero is free; namespaces that cannot be read share the entry 1.
  const std::uint64_t word = mine == 0 ? 1 : mine;
  for (std::uint32_t i = 0; i < max_namespaces; ++i) {
    std::uint64_t seen = words.head().namespaces[i].load(sc);
    if (seen == 0 && words.head().namespaces[i].compare_exchange_strong(seen, word, sc)) return i;
    if (seen == word) return i;
  }
  throw no_memory(
      "processes of " + std::to_string(max_namespaces) +
      " pid or time namespaces already use this arena, which is the limit; SHAREDMEM_ARENA=new gives this "
      "process an arena of its own");
}

/// Repairs slots that this process had before it called execve(2), as servers do to restart. Pid and start time are
/// still the same, so no other process can tell that these slots are dead. Slots that the present program took are
/// left alone, as another copy of this library in this process may have them.
void membership::repair_earlier_programs() {
  const std::uint64_t program = this_program();
  if (program == 0 || peers.me().start == 0) return;
  const std::lock_guard lock(repairs);
  const auto mark = static_cast<std::uint32_t>(words.slot_mark().load(sc));
  for (std::uint32_t s = 0; s < mark && s < words.overflow_slot(); ++s) {
    std::uint64_t seen = words.slot(s).ctl.load(sc);
    const auto w = slot_word::from(seen);
    const std::uint64_t repair = slot_word{slot_state::repair, peers.me()}.bits();
    const std::uint64_t earlier = words.slot(s).program.load(sc);
    if (earlier == 0 || earlier == program || !takes_part(w.state) || w.who != peers.me()) continue;
    try {
      words.sync();  // a slot becomes VOID only when nothing of it is left in any segment
    } catch (...) {
      return;
    }
    if (!words.slot(s).ctl.compare_exchange_strong(seen, repair, sc)) continue;
    // Another copy of the library may have repaired and taken it since: the same `ctl`, but of this program.
    if (words.slot(s).program.load(sc) == earlier)
      repairs.repair_slot(s, repair);
    else
      words.slot(s).ctl.store(seen, sc);
  }
}

std::uint32_t membership::take_slot(slot_state as) {
  peers.identify();
  repair_earlier_programs();
  const slot_word taken{as, peers.me()};
  for (int round = 0; round < 2; ++round) {
    for (std::uint32_t s = 0; s < words.overflow_slot(); ++s) {
      if (words.slot(s).ctl.load(relaxed) != 0) continue;
      raise_mark(words.slot_mark(),
                 s + 1);  // before the slot is taken, since claimed() looks below the mark only
      std::uint64_t none = 0;
      if (!words.slot(s).ctl.compare_exchange_strong(none, taken.bits(), sc)) continue;
      step<point::join_active>();
      words.slot(s).reset(this_program());
      return s;
    }
    if (round == 0) repairs.look_for_dead(true);  // all are taken: slots of the dead may become free
  }
  const std::string all = "all " + std::to_string(words.overflow_slot()) + " process slots of ";
  if (words.head().names != 0)
    throw no_memory(all +
                    "the arena of names are in use, the limit for its processes; end some, or give "
                    "groups of them separate names with SHAREDMEM_NAMESPACE");
  throw no_memory(all +
                  "this arena are in use (254, or four per core, fixed when the first process made it); end "
                  "some processes, or "
                  "give groups of them arenas of their own with SHAREDMEM_ARENA=new");
}

void membership::start_anew() noexcept {
  // A child that no fork handler announced: nothing here is ours, and locks may be held by threads that
  // do not exist in this process.
  new (&joining) std::mutex;
  repairs.renew_lock();
  repairs.forget_last_look();
  refs.renew_locks();
  pool.renew_lock();
  words.forget_lock();
  pool.resume_threads();
  refs.forget();
  pool.forget_chunks();
}

void membership::leave_overflow() {
  const std::lock_guard alone(joining);
  if (!peers.in_overflow()) return;
  // RESERVED until our own bits are set: for the census this is still a process without a slot, so that none
  // clears the overflow slot, whose bits hold our blocks until then.
  const std::uint32_t own = take_slot(slot_state::reserved);
  const auto locks = refs.all_stripes();
  refs.each_held([&](std::uint32_t b, const record& r) { refs.rules.hold(b, own, r.generation); });
  words.slot(own).ctl.store(slot_word{slot_state::active, peers.me()}.bits(), sc);
  identity.become(own);
}

liveness participant_table::look(const actor& who) const noexcept {
  if (who == me_) return liveness::alive;
  if (who.space != me_.space) return liveness::unknown;
  return look_at({who.pid, who.start});
}

/// Whether an actor is surely one of those that the census counts. Exec keeps pid and start time, but not
/// the memory; what cannot be read proves nothing.
bool participant_table::is_counted(const actor& who) const noexcept {
  return who == me_ || (look(who) == liveness::alive && !is_exiting(who.pid) &&
                        maps_segment(who.pid, words.at(0).memory.name(), false));
}

/// Whether the census counts exactly the participating actors that `expected` selects.
template <class Pick>
bool participant_table::census_is(Pick&& expected) const noexcept {
  if (!attendance) return false;
  std::uint32_t active = 0;
  const auto mark = static_cast<std::uint32_t>(words.slot_mark().load(sc));
  for (std::uint32_t s = 0; s < mark && s < words.overflow_slot(); ++s) {
    const auto w = slot_word::from(words.slot(s).ctl.load(sc));
    if (!takes_part(w.state) || !expected(w.who)) continue;
    roll[active++] = w.bits();
  }
  try {
    if (static_cast<std::uint32_t>(attendance.processes()) != active) return false;  // after the slots
  } catch (const error&) {
    return false;
  }
  return std::all_of(&roll[0], &roll[active],
                     [this](std::uint64_t bits) { return is_counted(slot_word::from(bits).who); });
}

/// Whether every process that can touch the arena has a slot.
bool participant_table::no_child_without_slot() const noexcept {
  return census_is([](const actor&) { return true; });
}

/// Whether every process that can touch the arena takes part in it and is in our namespaces. The pid of an actor in
/// other namespaces tells nothing; but if this function returns true, such an actor has ended.
bool participant_table::only_we_are_left() const noexcept {
  return census_is([this](const actor& who) { return who.space == me_.space; });
}

/// An actor that is alive but no longer maps the arena: exec keeps pid and start time.
bool participant_table::exec_happened(const actor& who) const noexcept {
  if (who == me_ || who.space != me_.space || look(who) != liveness::alive) return false;
  return !maps_segment(who.pid, words.at(0).memory.name(), true);
}

}  // namespace sharedmem
