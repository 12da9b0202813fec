/// Fork: the child gets a slot and a claim on every block that this process references, before it exists.
#include "members/membership.hpp"

#include <utility>

#include <sharedmem/error.hpp>

#include "os/pages.hpp"
#include "shared/raise_mark.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto sc = std::memory_order_seq_cst;
constexpr std::uint32_t none = ~std::uint32_t{0};

}  // namespace

/// A slot RESERVED(me) for the child, or `none`.
std::uint32_t membership::reserve_slot() noexcept {
  const slot_word reserved{slot_state::reserved, peers.me()};
  for (std::uint32_t k = 0; k < words.overflow_slot(); ++k) {
    if (words.slot(k).ctl.load(relaxed) != 0) continue;
    raise_mark(words.slot_mark(), k + 1);
    std::uint64_t expected = 0;
    if (!words.slot(k).ctl.compare_exchange_strong(expected, reserved.bits(), sc)) continue;
    words.slot(k).program.store(this_program(), relaxed);
    words.slot(k).reserver.store(peers.slot() + 1, sc);
    return k;
  }
  return none;
}

/// Whether every slot below the overflow slot is taken, perhaps by the dead.
bool membership::reserve_slot_is_hopeless() const noexcept {
  for (std::uint32_t k = 0; k < words.overflow_slot(); ++k)
    if (words.slot(k).ctl.load(relaxed) == 0) return false;
  return true;
}

/// Announces that a child will use an overflow slot, and returns which: one that is not being cleared. See
/// clear_overflow.
std::uint32_t membership::enter_overflow() noexcept {
  word64& overflow = words.head().overflow;
  words.slot_mark().store(words.slots(), sc);
  if (peers.has_slot())
    words.slot(peers.slot()).forking.store(1, sc);  // a process without a slot is seen in the census
  std::uint64_t seen = overflow.load(sc);
  for (;;) {
    const std::uint32_t k = (seen & overflow_clearing(0)) == 0 ? 0 : 1;
    if (overflow.compare_exchange_weak(seen, seen | overflow_used(k), sc)) return words.overflow_slot() + k;
  }
}

/// Publishes blocks that only this process knew, and sets the child's bit on all that are held. All locks are held.
/// It must not fail, since a child without claims would see its arrays overwritten by others; so it uses no memory.
void membership::claim_for(std::uint32_t child) noexcept {
  refs.each_held([&](std::uint32_t b, const record& r) { refs.rules.hold(b, child, r.generation); },
                 [&](std::uint32_t b) { __builtin_prefetch(words.block(b), 1); });
  const slab* last = nullptr;
  pool.each_unshared([&](slab& s, std::uint32_t i) {
    if (std::exchange(last, &s) != &s) {
      chunk_entry& c = words.chunk(s.chunk);
      if (c.published.load(relaxed) < s.carved) c.published.store(s.carved, sc);
      populate_descriptors(s);
    }
    const std::uint32_t b = s.first + i;
    // Its record was made ready with its chunk.
    refs.begin(b, refs.rules.publish_for_two(b, peers.slot(), child,
                                             words.chunk_place(s.chunk) + i * s.block_bytes, s.block_bytes));
    s.states[i].store(use::published, std::memory_order_release);
  });
}

/// Makes the pages of a chunk's descriptors present by one call, which costs half of what a fault for each would.
void membership::populate_descriptors(const slab& s) noexcept {
  extent& e = words.extent_of_chunk(s.chunk);
  const auto base = static_cast<std::size_t>(e.descriptors - e.memory.data());
  const std::size_t stride = words.head().descriptor_bytes;
  const std::size_t page = os::page_size();
  const std::size_t start = (base + (s.first - e.first_block) * stride) / page * page;
  const std::size_t end = base + (s.first - e.first_block + s.carved) * stride;
  if (end - start >= 16 * page) e.memory.populate(start, (end - start + page - 1) / page * page);
}

void membership::let_go_after_fork() noexcept {
  words.let_grow();
  pool.unlock();
  refs.unlock();
  repairs.unlock();
  joining.unlock();
}

void membership::prepare_fork() noexcept {
  if (reserve_slot_is_hopeless()) repairs.look_for_dead(true);
  joining.lock();
  repairs.lock();
  refs.lock();
  pool.lock();
  words.hold_growth();
  pool.stop_threads();
  fork_prepared = true;
  child_slot = reserve_slot();
  child_overflows = child_slot == none;
  if (child_overflows) child_slot = enter_overflow();
  step<point::fork_reserved>();
  claim_for(child_slot);
  step<point::fork_bits>();
}

void membership::after_fork_in_parent() noexcept {
  if (!fork_prepared) return;
  step<point::fork_parent_back>();
  fork_prepared = false;
  if (child_overflows && peers.has_slot()) words.slot(peers.slot()).forking.store(0, sc);
  child_overflows = false;
  child_slot = none;
  pool.resume_threads();
  let_go_after_fork();
}

void membership::after_fork_in_child() noexcept {
  if (!fork_prepared) return;
  step<point::fork_child_started>();
  fork_prepared = false;
  const actor parent = peers.me();
  try {
    peers.identify();  // the parent may have called unshare(2) for its children
  } catch (const no_memory&) {
    child_slot =
        none;  // others could not tell whether this process lives: join as a new one, which fails with a reason
  }
  if (child_slot != none) {
    participant_entry& mine = words.slot(child_slot);
    std::uint64_t reserved = slot_word{slot_state::reserved, parent}.bits();
    const bool adopted =
        !child_overflows &&
        mine.ctl.compare_exchange_strong(reserved, slot_word{slot_state::active, peers.me()}.bits(), sc);
    if (adopted || child_overflows) identity.become(child_slot);
    if (adopted) mine.reset(this_program());
  }
  step<point::fork_adopted>();
  child_overflows = false;
  child_slot = none;
  repairs.forget_last_look();
  pool.forget_chunks();
  pool.resume_threads();
  let_go_after_fork();
}

}  // namespace sharedmem
