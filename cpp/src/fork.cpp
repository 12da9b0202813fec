/// Fork: the child gets a slot and a claim on every block that this process references, before it exists.
#include <utility>

#include "machine.hpp"
#include "state.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto sc = std::memory_order_seq_cst;
constexpr std::uint32_t none = ~std::uint32_t{0};

}  // namespace

/// A slot RESERVED(me) for the child, or `none`.
std::uint32_t arena::state::reserve_slot() noexcept {
  const slot_word reserved{slot_state::reserved, me};
  for (std::uint32_t k = 0; k < words.overflow_slot(); ++k) {
    if (words.slot(k).ctl.load(relaxed) != 0) continue;
    std::uint64_t mark = words.slot_mark().load(sc);
    while (mark <= k && !words.slot_mark().compare_exchange_weak(mark, k + 1, sc)) {
    }
    std::uint64_t expected = 0;
    if (words.slot(k).ctl.compare_exchange_strong(expected, reserved.bits(), sc)) return k;
  }
  return none;
}

/// Whether every slot below the overflow slot is taken, perhaps by the dead.
bool arena::state::reserve_slot_is_hopeless() const noexcept {
  for (std::uint32_t k = 0; k < words.overflow_slot(); ++k)
    if (words.slot(k).ctl.load(relaxed) == 0) return false;
  return true;
}

/// Announces that a child will use the overflow slot; see clear_overflow. False: somebody is clearing that
/// slot and does not get on with it.
bool arena::state::enter_overflow() noexcept {
  word64& overflow = words.head().overflow;
  words.slot_mark().store(words.slots(), sc);
  if (has_slot()) words.slot(slot()).forking.store(1, sc);  // without one we show up in the census
  std::uint64_t seen = overflow.load(sc);
  for (int patience = 0; patience < 1000;) {
    if ((seen & overflow_clearing) != 0) {
      const auto by = slot_word::from(words.slot(words.overflow_slot()).ctl.load(sc));
      if (by.state != slot_state::repair || look(by.who) != liveness::dead) {
        ++patience;
        yield_cpu();
        seen = overflow.load(sc);
        continue;
      }
    }
    const std::uint64_t used = ((seen & ~overflow_clearing) | overflow_used) + 1;
    if (overflow.compare_exchange_weak(seen, used, sc)) return true;
  }
  return false;
}

/// Publishes what only this process knew, and sets the child's bit on all that is held. All locks are held.
void arena::state::claim_for(std::uint32_t child) {
  held.each_held([&](std::uint32_t b, const record& r) { rules.hold(b, child, r.generation); },
                 [&](std::uint32_t b) { __builtin_prefetch(words.block(b), 1); });
  for (slab* s = all_owned; s != nullptr; s = s->next_owned) {
    chunk_entry& c = words.chunk(s->chunk);
    const std::uint64_t place = words.chunk_place(s->chunk);
    bool first_here = true;
    for (std::uint32_t i = 0; i < s->carved; ++i) {
      if (s->states[i].load(relaxed) != use::in_use) continue;
      if (std::exchange(first_here, false)) {
        if (c.published.load(relaxed) < s->carved) c.published.store(s->carved, sc);
        populate_descriptors(*s);
      }
      const std::uint32_t b = s->first + i;
      record& r = held.at(b);
      r.generation = rules.publish_for_two(b, slot(), child, place + i * s->block_bytes, s->block_bytes);
      r.count = 1;
      references.fetch_add(1, relaxed);
      s->states[i].store(use::published, std::memory_order_release);
    }
  }
}

/// One call for the pages of many descriptors costs half of their faults.
void arena::state::populate_descriptors(const slab& s) noexcept {
  extent& e = words.extent_of_chunk(s.chunk);
  const auto base = static_cast<std::size_t>(e.descriptors - e.memory.data());
  const std::size_t stride = words.head().descriptor_bytes;
  const std::size_t start = (base + (s.first - e.first_block) * stride) / page_bytes * page_bytes;
  const std::size_t end = base + (s.first - e.first_block + s.carved) * stride;
  if (end - start >= 16 * page_bytes)
    e.memory.populate(start, (end - start + page_bytes - 1) / page_bytes * page_bytes);
}

void arena::state::let_go_after_fork() noexcept {
  words.let_grow();
  pool.unlock();
  for (std::mutex& m : stripes) m.unlock();
  repairing.unlock();
  joining.unlock();
}

void arena::prepare_fork() noexcept {
  state& s = *s_;
  try {
    s.settle();
  } catch (...) {
    return;  // no slot of our own either: the child will find out
  }
  if (s.reserve_slot_is_hopeless()) s.look_for_dead(true);
  s.joining.lock();
  s.repairing.lock();
  for (std::mutex& m : s.stripes) m.lock();
  s.pool.lock();
  s.words.hold_growth();
  s.stop_threads();
  s.fork_prepared = true;
  s.child_slot = s.reserve_slot();
  s.child_overflows = s.child_slot == none;
  if (s.child_overflows && s.enter_overflow()) s.child_slot = s.words.overflow_slot();
  step<point::fork_reserved>();
  try {
    if (s.child_slot != none) s.claim_for(s.child_slot);
  } catch (const std::bad_alloc&) {
    s.child_slot = none;  // the child cannot be told what it holds: it starts with nothing, as if unannounced
  }
  step<point::fork_bits>();
}

void arena::after_fork_in_parent() noexcept {
  state& s = *s_;
  if (!s.fork_prepared) return;
  step<point::fork_parent_back>();
  s.fork_prepared = false;
  if (s.child_overflows && s.has_slot()) s.words.slot(s.slot()).forking.store(0, sc);
  s.child_overflows = false;
  s.child_slot = none;
  s.resume_threads();
  s.let_go_after_fork();
}

void arena::after_fork_in_child() noexcept {
  state& s = *s_;
  if (!s.fork_prepared) return;
  step<point::fork_child_started>();
  s.fork_prepared = false;
  const actor parent = s.me;
  const process_id self_id = this_process();
  s.me = {self_id.pid, self_id.start, parent.space};
  try {
    s.me.space = s.namespace_index();  // the parent may have called unshare(2) for its children
  } catch (const no_memory&) {
    s.child_slot = none;  // nobody could tell whether we live: start anew, and fail there with a reason
  }
  if (s.child_slot != none) {
    participant_entry& mine = s.words.slot(s.child_slot);
    std::uint64_t reserved = slot_word{slot_state::reserved, parent}.bits();
    const bool adopted = !s.child_overflows && mine.ctl.compare_exchange_strong(
                                                   reserved, slot_word{slot_state::active, s.me}.bits(), sc);
    if (adopted || s.child_overflows) s.become(s.child_slot);
    if (adopted) {
      mine.returns.store(0, relaxed);
      mine.cached.store(0, relaxed);
      mine.chunks.store(0, relaxed);
      mine.forking.store(0, relaxed);
    }
  }
  step<point::fork_adopted>();
  s.child_overflows = false;
  s.child_slot = none;
  s.forget_chunks();
  s.resume_threads();
  s.let_go_after_fork();
}

}  // namespace sharedmem
