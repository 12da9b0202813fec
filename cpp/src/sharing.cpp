/// Blocks that several processes reference: what a handle claims, and what its message keeps.
#include <string>

#include "state.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;

}  // namespace

claim arena::share(const block_ref& ref, bool lease) {
  state& s = *s_;
  s.join_if_forked();
  if (ref.epoch != s.refs.epoch())
    throw stale_handle("this array was inherited by a process that was forked without fork handlers");
  std::unique_lock lock(s.refs.stripe(ref.block));
  claim c{ref.block, s.refs.publish(ref.block, ref.owner), no_lease, 0};
  if (!lease) return c;
  const std::uint64_t bytes = s.words.block(ref.block)[at_bytes].load(relaxed);
  s.check_in_flight(bytes);
  bool sent = s.refs.send(c, bytes);
  if (!sent) {  // messages of dead senders; this frees blocks, so the lock must not be held
    lock.unlock();
    s.repairs.look_for_dead(true);
    s.repairs.expire(false);
    lock.lock();
    sent = s.refs.send(c, bytes);
  }
  if (!sent)
    throw no_memory("all " + std::to_string(s.words.lease_count()) +
                    " leases of this arena are in use: that many arrays were sent and not received" +
                    s.in_flight_text());
  return c;
}

void arena::give_back(const claim& c) noexcept { s_->refs.give_back(c); }

bool arena::note_read(const claim& c) noexcept { return s_->refs.note_read(c); }

bool arena::note_written(const claim& c, bool again) noexcept { return s_->refs.note_written(c, again); }

bool arena::stands_for(const claim& c) noexcept { return s_->refs.stands_for(c); }

bool arena::is_in_flight(const claim& c) noexcept { return s_->refs.is_in_flight(c); }

bool arena::give_back_lost(const claim& c) noexcept { return s_->refs.give_back_lost(c); }

bool arena::keep_in(const claim& c, const claim& keeper) noexcept { return s_->refs.keep_in(c, keeper); }

bool arena::take_from_keeper(const claim& c) noexcept { return s_->refs.take_from_keeper(c); }

bool arena::give_back_kept(const claim& c) noexcept { return s_->refs.give_back_kept(c); }

std::uint64_t arena::drop_unkept() noexcept { return s_->identity.known() ? s_->repairs.drop_unkept() : 0; }

std::uint64_t arena::new_ends() noexcept { return s_->words.head().ends.fetch_add(2, relaxed); }

void arena::read_elsewhere(std::uint64_t end) noexcept {
  s_->words.head().read_elsewhere[end / 64 % end_words].fetch_or(std::uint64_t{1} << end % 64);
}

bool arena::is_read_elsewhere(std::uint64_t end) const noexcept {
  return (s_->words.head().read_elsewhere[end / 64 % end_words].load() >> end % 64 & 1) != 0;
}

allocation arena::acquire(const claim& c) {
  state& s = *s_;
  s.join_if_forked();
  if (s.peers.in_overflow())
    s.member.leave_overflow();  // its bit is shared: a stale claim could not be backed out of
  const references::located got = s.refs.acquire(c);
  return {{this, nullptr, got.block, s.refs.epoch()}, got.data, got.bytes, false};
}

block_ref arena::duplicate(const block_ref& ref) {
  share(ref, false);  // a count needs a record
  state& s = *s_;
  s.refs.acquire_again(ref.block);
  return {this, nullptr, ref.block, s.refs.epoch()};
}

allocation arena::find(const void* p) const noexcept {
  const references& refs = s_->refs;
  const references::located found = refs.find(p);
  if (found.data == nullptr) return {};
  return {{const_cast<arena*>(this), found.owner, found.block, refs.epoch()},
          found.data,
          found.bytes,
          false,
          found.read_only,
          found.carried};
}

void arena::mark_carried(const block_ref& ref) noexcept { s_->refs.mark_carried(ref.block); }

bool arena::held_elsewhere(const block_ref& ref) const noexcept { return s_->refs.held_elsewhere(ref.block); }

bool arena::contains(const void* p) const noexcept {
  const tables& words = s_->words;
  return words.chunk_at(p) < words.chunk_count() || words.writable(p) != nullptr;
}

const std::byte* arena::read_only(const void* p) {
  tables& words = s_->words;
  if (words.chunk_at(p) < words.chunk_count()) return words.read_only(p);
  return words.writable(p) != nullptr ? static_cast<const std::byte*>(p) : nullptr;
}

std::byte* arena::writable(const void* p) const noexcept {
  const tables& words = s_->words;
  // An address in the writable mapping may have been given to code that writes there.
  if (words.chunk_at(p) < words.chunk_count())
    return const_cast<std::byte*>(static_cast<const std::byte*>(p));
  return words.writable(p);
}

}  // namespace sharedmem
