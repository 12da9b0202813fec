/// Fork: the child gets a slot and a claim on every block that this process references, before it exists.
#include <utility>

#include "os/machine.hpp"
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
    if (!words.slot(k).ctl.compare_exchange_strong(expected, reserved.bits(), sc)) continue;
    words.slot(k).program.store(this_program(), relaxed);
    words.slot(k).reserver.store(slot() + 1, sc);
    return k;
  }
  return none;
}

/// Whether every slot below the overflow slot is taken, perhaps by the dead.
bool arena::state::reserve_slot_is_hopeless() const noexcept {
  for (std::uint32_t k = 0; k < words.overflow_slot(); ++k)
    if (words.slot(k).ctl.load(relaxed) == 0) return false;
  return true;
}

/// Announces that a child will use an overflow slot, and returns which: one that nobody is clearing. See
/// clear_overflow.
std::uint32_t arena::state::enter_overflow() noexcept {
  word64& overflow = words.head().overflow;
  words.slot_mark().store(words.slots(), sc);
  if (has_slot()) words.slot(slot()).forking.store(1, sc);  // without one we show up in the census
  std::uint64_t seen = overflow.load(sc);
  for (;;) {
    const std::uint32_t k = (seen & overflow_clearing(0)) == 0 ? 0 : 1;
    if (overflow.compare_exchange_weak(seen, seen | overflow_used(k), sc)) return words.overflow_slot() + k;
  }
}

/// Publishes what only this process knew, and sets the child's bit on all that is held. All locks are held.
/// Needs no memory, hence cannot fail: a child without claims would see its arrays turn into others'.
void arena::state::claim_for(std::uint32_t child) noexcept {
  held.each_held([&](std::uint32_t b, const record& r) { rules.hold(b, child, r.generation); },
                 [&](std::uint32_t b) { __builtin_prefetch(words.block(b), 1); });
  const slab* last = nullptr;
  pool.each_unshared([&](slab& s, std::uint32_t i) {
    if (std::exchange(last, &s) != &s) {
      chunk_entry& c = words.chunk(s.chunk);
      if (c.published.load(relaxed) < s.carved) c.published.store(s.carved, sc);
      populate_descriptors(s);
    }
    const std::uint32_t b = s.first + i;
    record& r = *held.find(b);  // made ready with its chunk
    r.generation = rules.publish_for_two(b, slot(), child, words.chunk_place(s.chunk) + i * s.block_bytes,
                                         s.block_bytes);
    r.count = 1;
    references.fetch_add(1, relaxed);
    s.states[i].store(use::published, std::memory_order_release);
  });
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
  s.pool.stop_threads();
  s.fork_prepared = true;
  s.child_slot = s.reserve_slot();
  s.child_overflows = s.child_slot == none;
  if (s.child_overflows) s.child_slot = s.enter_overflow();
  step<point::fork_reserved>();
  s.claim_for(s.child_slot);
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
  s.pool.resume_threads();
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
      mine.program.store(this_program(), sc);
    }
  }
  step<point::fork_adopted>();
  s.child_overflows = false;
  s.child_slot = none;
  s.forget_chunks();
  s.pool.resume_threads();
  s.let_go_after_fork();
}

}  // namespace sharedmem
