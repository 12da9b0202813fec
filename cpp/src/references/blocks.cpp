/// References of this process to blocks: sharing, acquiring, releasing.
#include <string>

#include "os/machine.hpp"
#include "shared/raise_mark.hpp"
#include "state.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;

std::string name_of(const claim& c) {
  return "block " + std::to_string(c.block) + ", generation " + std::to_string(c.generation);
}

}  // namespace

bool arena::state::may_keep(std::uint32_t b) const noexcept {
  const std::uint64_t bytes = words.block(b)[at_bytes].load(relaxed);
  return bytes <= max_class_bytes ||
         pool.cached_everywhere() + bytes <= words.head().cache_limit.load(relaxed);
}

void arena::state::empty_pages(std::uint32_t b) noexcept {
  const std::uint64_t place = words.block(b)[at_place].load(relaxed);
  const std::uint64_t bytes = words.block(b)[at_bytes].load(relaxed);
  extent& e = words.extent_of_block(b);
  if (place % chunk_bytes != 0 || !e.has(place, bytes)) return;  // a table that makes no sense
  if (e.memory.discard(
          static_cast<std::size_t>(e.data - e.memory.data() + static_cast<std::ptrdiff_t>(place)),
          static_cast<std::size_t>(bytes)))
    words.chunk(words.chunk_of(b, place)).emptied.store(1, relaxed);
}

/// Block b became FREE by our hand: its owner lists it again, now if that is us, else when it sweeps.
void arena::state::after_free(std::uint32_t b, std::uint64_t place) {
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

void arena::state::drop_published(std::uint32_t b) noexcept {
  record* r = held.find(b);
  if (r == nullptr || r->count == 0) return;
  if (--r->count != 0) return;
  references.fetch_sub(1, relaxed);
  if (in_overflow()) return;  // others' references may hang on the same bit
  rules.clear(b, slot());
  free_if_unclaimed(b);
}

claim arena::share(const block_ref& ref, bool lease) {
  state& s = *s_;
  s.settle();
  if (ref.epoch != s.epoch)
    throw stale_handle("this array was inherited by a process that was forked without fork handlers");
  std::unique_lock lock(s.stripe(ref.block));
  record& r = s.held.at(ref.block);
  slab* owner = ref.owner;
  const std::uint32_t i = owner == nullptr ? 0 : ref.block - owner->first;
  if (owner != nullptr && owner->states[i].load(relaxed) == use::in_use) {
    chunk_entry& c = s.words.chunk(owner->chunk);
    raise_mark(c.published, i + 1);  // before the bit: repair looks below it only
    r.generation = s.rules.publish(
        ref.block, s.slot(), s.words.chunk_place(owner->chunk) + i * owner->block_bytes, owner->block_bytes);
    r.count = 1;
    s.references.fetch_add(1, relaxed);
    owner->states[i].store(use::published, std::memory_order_release);  // after LIVE: a sweep believes it
  }
  if (r.count == 0) throw corrupted("block " + std::to_string(ref.block) + " is referenced but not counted");
  claim c{ref.block, r.generation, no_lease, 0};
  if (!lease) return c;
  const std::uint64_t bytes = s.words.block(ref.block)[at_bytes].load(relaxed);
  s.check_in_flight(bytes);
  auto id = s.rules.leases.send(ref.block, r.generation, s.slot(), monotonic_ns(), bytes);
  if (!id) {  // what the dead sent and nobody received; frees blocks, hence without the lock
    lock.unlock();
    s.look_for_dead(true);
    s.expire(false);
    lock.lock();
    id = s.rules.leases.send(ref.block, r.generation, s.slot(), monotonic_ns(), bytes);
  }
  if (!id)
    throw no_memory("all " + std::to_string(s.words.lease_count()) +
                    " leases of this arena are out: that many arrays were sent and not received" +
                    s.in_flight_text());
  c.lease = id->entry;
  c.nonce = id->nonce;
  return c;
}

void arena::give_back(const claim& c) noexcept {
  state& s = *s_;
  if (c.lease >= s.words.lease_count() || !s.words.has_block(c.block)) return;
  if (!s.identity.known()) return;
  const std::lock_guard lock(s.stripe(c.block));
  if (s.rules.leases.give_back({c.lease, c.nonce})) s.free_if_unclaimed(c.block);
}

bool arena::note_read(const claim& c) noexcept {
  state& s = *s_;
  if (c.lease >= s.words.lease_count() || !s.identity.known()) return false;
  return s.rules.leases.take_over({c.lease, c.nonce}, s.slot()) != taken_over::not_out;
}

bool arena::note_written(const claim& c, bool again) noexcept {
  state& s = *s_;
  if (c.lease >= s.words.lease_count() || !s.identity.known()) return false;
  const taken_over before = s.rules.leases.take_over({c.lease, c.nonce}, s.slot());
  if (before == taken_over::own && !again) return s.has_slot();
  if (before != taken_over::not_out) s.rules.leases.note_copies({c.lease, c.nonce});
  return false;
}

bool arena::stands_for(const claim& c) noexcept {
  state& s = *s_;
  if (c.lease >= s.words.lease_count() || !s.identity.known()) return false;
  return s.has_slot() && s.rules.leases.is_out({c.lease, c.nonce}, s.slot());
}

bool arena::give_back_lost(const claim& c) noexcept {
  state& s = *s_;
  if (!stands_for(c) || !s.words.has_block(c.block)) return false;
  const std::lock_guard lock(s.stripe(c.block));
  if (!s.rules.leases.give_back_lost({c.lease, c.nonce}, s.slot())) return false;
  s.free_if_unclaimed(c.block);
  return true;
}

std::uint64_t arena::new_ends() noexcept { return s_->words.head().ends.fetch_add(2, relaxed); }

void arena::read_elsewhere(std::uint64_t end) noexcept {
  s_->words.head().read_elsewhere[end / 64 % end_words].fetch_or(std::uint64_t{1} << end % 64);
}

bool arena::is_read_elsewhere(std::uint64_t end) const noexcept {
  return (s_->words.head().read_elsewhere[end / 64 % end_words].load() >> end % 64 & 1) != 0;
}

allocation arena::acquire(const claim& c) {
  state& s = *s_;
  s.settle();
  if (s.in_overflow()) s.leave_overflow();  // its bit is shared: a stale claim could not be backed out of
  if (c.block >= s.words.block_count()) s.words.sync();
  if (c.block >= s.words.block_count() || c.generation > generation_mask)
    throw stale_handle("the handle names " + name_of(c) + ", which this arena does not have");
  if (!s.words.has_block(c.block))
    throw stale_handle(
        "the memory of this array is gone (" + name_of(c) +
        "): the process that made this part of the arena ended before any other had attached it");
  allocation a;
  const std::lock_guard lock(s.stripe(c.block));
  auto* block = s.words.block(c.block);
  record& r = s.held.at(c.block);
  bool leased = false;
  if (c.lease < s.words.lease_count()) {
    leased = s.words.lease(c.lease)[at_what].load(relaxed) == s.rules.leases.what(c.block, c.generation) &&
             s.rules.leases.begin_load({c.lease, c.nonce}, s.slot());
  }
  bool ok = false;
  if (r.count > 0) {
    ok = r.generation == c.generation;
  } else {
    ok = s.rules.hold(c.block, s.slot(), c.generation);
    if (!ok) s.free_if_unclaimed(c.block);  // others saw the bit
  }
  if (leased) s.rules.leases.end_load({c.lease, c.nonce});
  if (!ok && leased) s.free_if_unclaimed(c.block);  // a forged handle took the last claim
  if (!ok)
    throw stale_handle("the memory of this array has been freed (" + name_of(c) +
                       "): its last holder dropped it before the handle was loaded");
  const std::uint64_t place = block[at_place].load(relaxed);
  const std::uint64_t bytes = block[at_bytes].load(relaxed);
  const extent& e = s.words.extent_of_block(c.block);
  if (!e.has(place, bytes)) {
    if (r.count == 0) {
      s.rules.clear(c.block, s.slot());
      s.free_if_unclaimed(c.block);
    }
    throw corrupted("the descriptor of " + name_of(c) + " lies outside the arena's data (place " +
                    std::to_string(place) + ", " + std::to_string(bytes) +
                    " bytes): a stray write hit the tables");
  }
  if (r.count++ == 0) {
    r.generation = c.generation;
    s.references.fetch_add(1, relaxed);
  }
  a.ref = {this, nullptr, c.block, s.epoch};
  a.data = e.data + place;
  a.bytes = bytes;
  return a;
}

block_ref arena::duplicate(const block_ref& ref) {
  share(ref, false);  // a count needs a record
  state& s = *s_;
  const std::lock_guard lock(s.stripe(ref.block));
  ++s.held.at(ref.block).count;
  return {this, nullptr, ref.block, s.epoch};
}

allocation arena::find(const void* p) const noexcept {
  state& s = *s_;
  allocation none;
  if (!s.identity.known()) return none;
  std::uint32_t c = s.words.chunk_at(p);
  if (c >= s.words.chunk_count()) return none;
  auto w = owner_word::from(s.words.chunk(c).owner.load(relaxed));
  if (w.state == chunk_state::inner && w.distance <= c) {
    c -= w.distance;
    w = owner_word::from(s.words.chunk(c).owner.load(relaxed));
  }
  const auto cut = cut_word::from(s.words.chunk(c).cut.load(std::memory_order_acquire));
  const auto offset = static_cast<std::uint64_t>(static_cast<const std::byte*>(p) - s.words.chunk_data(c));
  const bool is_run = cut.size_class == no_class;
  if (cut.run == 0 || (!is_run && cut.size_class >= class_count)) return none;
  const std::uint64_t size = is_run ? std::uint64_t{cut.run} * chunk_bytes : class_bytes(cut.size_class);
  const std::uint64_t i = offset / size;
  const std::uint32_t b = s.words.chunk(c).first.load(relaxed) + static_cast<std::uint32_t>(i);
  if (i >= s.words.chunk(c).capacity.load(relaxed) || b >= s.words.block_count()) return none;
  allocation a;
  a.data = s.words.chunk_data(c) + i * size;
  a.bytes = size;
  a.ref = {const_cast<arena*>(this), nullptr, b, s.epoch};
  // A reference of ours keeps all this as it is; without one the answer is "none", whatever was read.
  slab* mine = w.state == chunk_state::owned && w.slot == s.slot() ? s.pool.owned_at(c) : nullptr;
  if (mine != nullptr && b - mine->first < mine->count &&
      mine->states[b - mine->first].load(relaxed) == use::in_use) {
    a.ref.owner = mine;
    return a;
  }
  const std::lock_guard lock(s.stripe(b));
  const record* r = s.held.find(b);
  return r != nullptr && r->count > 0 ? a : none;
}

bool arena::contains(const void* p) const noexcept { return s_->words.chunk_at(p) < s_->words.chunk_count(); }

}  // namespace sharedmem
