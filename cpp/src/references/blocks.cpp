/// References of this process to blocks: sharing, acquiring, releasing.
#include "references/references.hpp"

#include <string>

#include <sharedmem/error.hpp>

#include "os/machine.hpp"
#include "shared/raise_mark.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;

std::string name_of(const claim& c) {
  return "block " + std::to_string(c.block) + ", generation " + std::to_string(c.generation);
}

}  // namespace

bool references::may_keep(std::uint32_t b) const noexcept {
  const std::uint64_t bytes = words.block(b)[at_bytes].load(relaxed);
  return bytes <= max_class_bytes ||
         pool.cached_everywhere() + bytes <= words.head().cache_limit.load(relaxed);
}

void references::empty_pages(std::uint32_t b) noexcept {
  const std::uint64_t place = words.block(b)[at_place].load(relaxed);
  const std::uint64_t bytes = words.block(b)[at_bytes].load(relaxed);
  extent& e = words.extent_of_block(b);
  if (place % chunk_bytes != 0 || !e.has(place, bytes)) return;  // an invalid table
  if (e.memory.discard(
          static_cast<std::size_t>(e.data - e.memory.data() + static_cast<std::ptrdiff_t>(place)),
          static_cast<std::size_t>(bytes)))
    words.chunk(words.chunk_of(b, place)).emptied.store(1, relaxed);
}

/// Block b became FREE by our hand: its owner lists it again, now if that is us, else when it sweeps.
void references::after_free(std::uint32_t b, std::uint64_t place) {
  const std::uint32_t c = words.chunk_of(b, place);
  if (c >= words.chunk_count()) return;
  const auto owner = owner_word::from(words.chunk(c).owner.load(relaxed));
  if (owner.state != chunk_state::owned) return;
  if (owner.slot == slot()) {
    const std::lock_guard lock(pool);
    pool.list_if_free(b, c);
    return;
  }
  participant_entry& theirs = words.slot(owner.slot);
  const std::uint64_t bytes = words.block(b)[at_bytes].load(relaxed);
  if (bytes > max_class_bytes && words.chunk(c).emptied.load(relaxed) == 0)
    theirs.cached.fetch_add(bytes, relaxed);
  words.chunk(c).has_returns.store(1, relaxed);
  std::uint64_t none = 0;  // which chunk, or all ones for "several"
  if (!theirs.returns.compare_exchange_strong(none, std::uint64_t{c} + 1, std::memory_order_release) &&
      none != std::uint64_t{c} + 1)
    theirs.returns.store(~std::uint64_t{0}, std::memory_order_release);
}

/// Several processes may be in the overflow slot; signing with it, one could take another's FREEING for its own.
/// They leave the block LIVE, and clearing that slot checks all blocks.
bool references::free_if_unclaimed(std::uint32_t b) {
  return words.is_own(slot()) && free_if_unclaimed(b, slot());
}

/// `signer`: the slot that FREEING refers to; no other process may use it at this time.
bool references::free_if_unclaimed(std::uint32_t b, std::uint32_t signer) {
  const std::uint64_t place = words.block(b)[at_place].load(relaxed);
  const bool freed = rules.try_free(
      b, signer, [this](std::uint32_t x) { return may_keep(x); },
      [this](std::uint32_t x) { empty_pages(x); });
  if (freed) after_free(b, place);
  return freed;
}

void references::drop_published(std::uint32_t b) noexcept {
  record* r = held.find(b);
  if (r == nullptr || r->count == 0) return;
  if (--r->count != 0) return;
  count_.fetch_sub(1, relaxed);
  if (words.is_overflow(slot())) return;  // references of other processes may depend on the same bit
  rules.clear(b, slot());
  free_if_unclaimed(b);
}

std::uint64_t references::publish(std::uint32_t b, slab* owner) {
  record& r = held.at(b);
  const std::uint32_t i = owner == nullptr ? 0 : b - owner->first;
  if (owner != nullptr && owner->states[i].load(relaxed) == use::in_use) {
    chunk_entry& c = words.chunk(owner->chunk);
    raise_mark(c.published, i + 1);  // before the bit: repair looks below it only
    begin(r, rules.publish(b, slot(), words.chunk_place(owner->chunk) + i * owner->block_bytes,
                           owner->block_bytes));
    owner->states[i].store(use::published, std::memory_order_release);  // after LIVE: a sweep believes it
  }
  if (r.count == 0) throw corrupted("block " + std::to_string(b) + " is referenced but not counted");
  return r.generation;
}

bool references::send(claim& c, std::uint64_t bytes) {
  const auto id = rules.leases.send(c.block, c.generation, slot(), monotonic_ns(), bytes);
  if (!id) return false;
  c.lease = id->entry;
  c.nonce = id->nonce;
  return true;
}

void references::give_back(const claim& c) noexcept {
  if (c.lease >= words.lease_count() || !words.has_block(c.block)) return;
  if (!identity.known()) return;
  const std::lock_guard lock(stripe(c.block));
  if (rules.leases.give_back({c.lease, c.nonce})) free_if_unclaimed(c.block);
}

bool references::note_read(const claim& c) noexcept {
  if (c.lease >= words.lease_count() || !identity.known()) return false;
  return rules.leases.take_over({c.lease, c.nonce}, slot()) != taken_over::not_out;
}

bool references::note_written(const claim& c, bool again) noexcept {
  if (c.lease >= words.lease_count() || !identity.known()) return false;
  const taken_over before = rules.leases.take_over({c.lease, c.nonce}, slot());
  if (before == taken_over::own && !again) return words.is_own(slot());
  if (before != taken_over::not_out) rules.leases.note_copies({c.lease, c.nonce});
  return false;
}

bool references::stands_for(const claim& c) noexcept {
  if (c.lease >= words.lease_count() || !identity.known()) return false;
  return words.is_own(slot()) && rules.leases.is_out({c.lease, c.nonce}, slot());
}

bool references::is_in_flight(const claim& c) noexcept {
  return c.lease < words.lease_count() && rules.leases.claims_block({c.lease, c.nonce});
}

bool references::give_back_lost(const claim& c) noexcept {
  if (!stands_for(c) || !words.has_block(c.block)) return false;
  const std::lock_guard lock(stripe(c.block));
  if (!rules.leases.give_back_lost({c.lease, c.nonce}, slot())) return false;
  free_if_unclaimed(c.block);
  return true;
}

bool references::keep_in(const claim& c, const claim& keeper) noexcept {
  if (c.lease >= words.lease_count() || !identity.known()) return false;
  return rules.leases.keep({c.lease, c.nonce}, kept_by(keeper.block, keeper.generation));
}

bool references::take_from_keeper(const claim& c) noexcept {
  if (c.lease >= words.lease_count() || !identity.known()) return false;
  return rules.leases.take_from_keeper({c.lease, c.nonce}, slot(), monotonic_ns());
}

bool references::give_back_kept(const claim& c) noexcept {
  if (c.lease >= words.lease_count() || !words.has_block(c.block) || !identity.known()) return false;
  const std::lock_guard lock(stripe(c.block));
  if (!rules.leases.give_back_kept({c.lease, c.nonce})) return false;
  free_if_unclaimed(c.block);
  return true;
}

bool references::keeper_is_gone(std::uint64_t keeper) const noexcept {
  if ((keeper & keeper_mark) == 0) return false;  // taken out meanwhile
  const auto b = static_cast<std::uint32_t>((keeper & ~keeper_mark) >> 32);
  if (!words.has_block(b)) return false;
  const auto life = life_word::from(words.block(b)[at_life].load(std::memory_order_seq_cst));
  return life.state == life_state::free || kept_by(b, life.generation) != keeper;
}

references::located references::acquire(const claim& c) {
  if (c.block >= words.block_count()) words.sync();
  if (c.block >= words.block_count() || !words.has_descriptor(c.block) || c.generation > generation_mask)
    throw stale_handle("the handle refers to " + name_of(c) + ", which this arena does not have");
  if (!words.has_block(c.block))
    throw stale_handle(
        "this shared memory is gone (" + name_of(c) +
        "): the process that made this part of the arena ended before any other process had attached it");
  const std::lock_guard lock(stripe(c.block));
  auto* block = words.block(c.block);
  record& r = held.at(c.block);
  bool leased = false;
  if (c.lease < words.lease_count()) {
    leased = words.lease(c.lease)[at_what].load(relaxed) == rules.leases.what(c.block, c.generation) &&
             rules.leases.begin_load({c.lease, c.nonce}, slot());
  }
  bool ok = false;
  if (r.count > 0) {
    ok = r.generation == c.generation;
  } else {
    ok = rules.hold(c.block, slot(), c.generation);
    if (!ok) free_if_unclaimed(c.block);  // others saw the bit
  }
  if (leased) rules.leases.end_load({c.lease, c.nonce});
  if (!ok && leased) free_if_unclaimed(c.block);  // a forged handle took the last claim
  if (!ok)
    throw stale_handle(
        "this shared memory has been freed: its last holder dropped it before the handle was loaded, or its "
        "message was loaded before (" +
        name_of(c) + ")");
  const std::uint64_t place = block[at_place].load(relaxed);
  const std::uint64_t bytes = block[at_bytes].load(relaxed);
  const extent& e = words.extent_of_block(c.block);
  if (!e.has(place, bytes)) {
    if (r.count == 0) {
      rules.clear(c.block, slot());
      free_if_unclaimed(c.block);
    }
    throw corrupted("the descriptor of " + name_of(c) + " lies outside the arena's data (place " +
                    std::to_string(place) + ", " + std::to_string(bytes) +
                    " bytes): a stray write has changed the tables");
  }
  if (r.count == 0)
    begin(r, c.generation);
  else
    ++r.count;
  return {nullptr, c.block, e.data + place, bytes};
}

void references::acquire_again(std::uint32_t b) {
  const std::lock_guard lock(stripe(b));
  ++held.at(b).count;
}

void references::mark_carried(std::uint32_t b) noexcept {
  const std::lock_guard lock(stripe(b));
  if (record* r = held.find(b); r != nullptr && r->count > 0) r->carried = true;
}

void references::release(std::uint32_t b, slab* owner) noexcept {
  const std::lock_guard stripe_lock(stripe(b));
  if (owner != nullptr && owner->states[b - owner->first].load(relaxed) == use::in_use) {
    const std::lock_guard lock(pool);
    pool.make_cache_space(owner->size_class);
    pool.drop_unshared(*owner, b - owner->first);
    return;
  }
  drop_published(b);
}

bool references::held_elsewhere(std::uint32_t b) const noexcept {
  if (!words.is_own(slot())) return true;  // its bit is that of several processes
  const auto life = life_word::from(words.block(b)[at_life].load());
  auto& looking = const_cast<protocol<native_atomics, tables>&>(rules);
  return life.state != life_state::free && looking.claimed_by_others(b, life.generation, slot());
}

references::located references::find(const void* p) const noexcept {
  const located none;
  if (!identity.known()) return none;
  std::uint32_t c = words.chunk_at(p);
  bool read_only = false;
  if (c >= words.chunk_count()) {
    p = words.writable(p);
    if (p == nullptr) return none;
    c = words.chunk_at(p);
    read_only = true;
  }
  auto w = owner_word::from(words.chunk(c).owner.load(relaxed));
  if (w.state == chunk_state::inner && w.distance <= c) {
    c -= w.distance;
    w = owner_word::from(words.chunk(c).owner.load(relaxed));
  }
  const auto cut = cut_word::from(words.chunk(c).cut.load(std::memory_order_acquire));
  const auto offset = static_cast<std::uint64_t>(static_cast<const std::byte*>(p) - words.chunk_data(c));
  const bool is_run = cut.size_class == no_class;
  if (cut.run == 0 || (!is_run && cut.size_class >= class_count)) return none;
  const std::uint64_t size = is_run ? std::uint64_t{cut.run} * chunk_bytes : class_bytes(cut.size_class);
  const std::uint64_t i = offset / size;
  const std::uint32_t b = words.chunk(c).first.load(relaxed) + static_cast<std::uint32_t>(i);
  if (i >= words.chunk(c).capacity.load(relaxed) || b >= words.block_count()) return none;
  located found{nullptr, b, words.chunk_data(c) + i * size, size, read_only};
  // A reference of ours keeps all this as it is; without one the answer is "none", whatever was read.
  slab* mine = w.state == chunk_state::owned && w.slot == slot() ? pool.owned_at(c) : nullptr;
  if (mine != nullptr && b - mine->first < mine->count &&
      mine->states[b - mine->first].load(relaxed) == use::in_use) {
    found.owner = mine;
    return found;
  }
  const std::lock_guard lock(stripe(b));
  const record* r = held.find(b);
  if (r == nullptr || r->count == 0) return none;
  found.carried = r->carried;
  return found;
}

references::all_locks references::all_stripes() {
  all_locks locks;
  for (std::uint32_t i = 0; i < stripe_count; ++i) locks[i] = std::unique_lock(stripes[i]);
  return locks;
}

bool references::none_held() noexcept {
  if (holds_any()) return false;
  for (std::mutex& m : stripes) const std::lock_guard released(m);  // the last release has left its lock
  return !holds_any();
}

void references::forget() noexcept {
  ++epoch_;
  held.clear();
  count_.store(0, relaxed);
}

}  // namespace sharedmem
