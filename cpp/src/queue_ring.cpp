/// The ring of a queue: where its records lie, how it is replaced, and what a dead owner of the lock left.
#include <algorithm>
#include <bit>
#include <cstring>

#include <sharedmem/error.hpp>
#include <sharedmem/queue.hpp>

#include "queue_layout.hpp"

namespace sharedmem {
namespace {

constexpr std::uint64_t rounded_up(std::uint64_t bytes) noexcept {
  return (bytes + record_unit - 1) / record_unit * record_unit;
}

std::uint64_t mix(std::uint64_t a, std::uint64_t b) noexcept {
#ifdef __SIZEOF_INT128__
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
#else
  a = (a ^ (b >> 31)) * (b | 1);
  return a ^ (a >> 29);
#endif
}

std::uint64_t word_at(const std::byte* p) noexcept {
  std::uint64_t w = 0;
  std::memcpy(&w, p, sizeof w);
  return w;
}

}  // namespace

std::uint64_t queue_checksum(std::span<const std::byte> bytes) noexcept {
  // Odd constants of high entropy: digits of the golden ratio, of the square root of two, of pi and of e.
  constexpr std::uint64_t k[4] = {0x9e3779b97f4a7c15, 0x6a09e667f3bcc909, 0x243f6a8885a308d3,
                                  0xb7e151628aed2a6b};
  const std::byte* p = bytes.data();
  std::size_t n = bytes.size();
  std::uint64_t lane[4] = {k[0] ^ n, k[1], k[2], k[3]};
  for (; n >= 32; n -= 32, p += 32)
    for (int i = 0; i < 4; ++i) lane[i] = mix(lane[i] ^ word_at(p + 8 * i), k[i]) + lane[i];
  std::byte rest[32] = {};
  if (n != 0) std::memcpy(rest, p, n);
  for (int i = 0; i < 4; ++i) lane[i] = mix(lane[i] ^ word_at(rest + 8 * i), k[i]) + lane[i];
  return mix(lane[0] ^ std::rotl(lane[1], 17), k[2]) ^ mix(lane[2] ^ std::rotl(lane[3], 31), k[3]);
}

// ---- the ring

std::size_t queue::bytes_in_ring(const queue_message& m) noexcept {
  return static_cast<std::size_t>(
      rounded_up(sizeof(record) + m.claims.size_bytes() + (m.in_block ? 0 : m.bytes.size())));
}

/// The ring of a state, in this process.
std::byte* queue::ring(const claim& where, std::uint64_t bytes) {
  if (ring_block_.ref.home == nullptr || ring_claim_.block != where.block ||
      ring_claim_.generation != where.generation) {
    allocation found = home()->acquire({where.block, where.generation, no_lease, 0});
    std::swap(found, ring_block_);
    ring_claim_ = where;
    if (found.ref.home != nullptr) home()->release(found.ref);
  }
  if (bytes < first_ring_bytes || bytes > ring_block_.bytes || bytes % record_unit != 0)
    throw corrupted("the ring of a queue is corrupted: a stray write has changed it");
  return ring_block_.data;
}

/// The record at byte `at` of those that are put up to `end`, checked.
const queue::record& queue::read(const state& s, std::uint64_t at, std::uint64_t end) {
  const std::byte* start = ring(s.ring, s.ring_bytes);
  const std::uint64_t place = at % s.ring_bytes;
  const auto& r = *reinterpret_cast<const record*>(start + place);
  const std::uint64_t most = std::min(s.ring_bytes - place, end - at);
  bool sound = at % record_unit == 0 && most >= record_unit && r.size >= record_unit &&
               r.size % record_unit == 0 && r.size <= most;
  if (sound && (r.flags & no_message) == 0) {
    const std::uint64_t bytes = (r.flags & in_block_flag) != 0 ? 0 : r.length;
    sound = r.size >= sizeof(record) && r.claims <= r.size / sizeof(claim) && bytes <= r.size &&
            sizeof(record) + r.claims * sizeof(claim) + bytes <= r.size &&
            ((r.flags & in_block_flag) == 0 || r.claims != 0);
  }
  if (!sound) throw corrupted("a message of a queue is corrupted: a stray write has changed it");
  return r;
}

template <class F>
void queue::each_claim(const state& s, std::uint64_t from, std::uint64_t to, F&& f) {
  for (std::uint64_t at = from; at < to;) {
    const record& r = read(s, at, to);
    if ((r.flags & no_message) == 0) {
      const auto* claims = reinterpret_cast<const claim*>(&r + 1);
      for (std::uint32_t i = 0; i < r.claims; ++i) f(claims[i]);
    }
    at += r.size;
  }
}

/// Where a record of that size is placed: at the tail, or at the ring's start if there is too little space before its end.
std::uint64_t queue::position(const state& s, std::uint64_t bytes, bool& fits) const noexcept {
  const std::uint64_t before_end = s.ring_bytes - s.tail % s.ring_bytes;
  const std::uint64_t at = bytes <= before_end ? s.tail : s.tail + before_end;
  fits = at + bytes - s.head <= s.ring_bytes;
  return at;
}

// ---- what a dead owner of the lock left

void queue::repair() {
  const state& s = at_->now();
  switch (at_->doing) {
    case layout::work::nothing: return;
    case layout::work::putting:
      if (s.tail == at_->from)  // not committed
        each_claim(s, at_->from, at_->to, [this](const claim& c) { home()->give_back_kept(c); });
      break;
    case layout::work::taking:
      if (s.head == at_->to)  // committed: the message went with its taker
        each_claim(s, at_->from, at_->to, [this](const claim& c) { home()->give_back_kept(c); });
      break;
    case layout::work::replacing: {
      const bool committed = s.ring.block == at_->ring.block;  // of two that are in use, the old and the new
      home()->give_back_kept(committed ? at_->old_ring : at_->ring);
      break;
    }
  }
  at_->done();
  step<point::queue_repaired>();
}

queue::outcome queue::set_ring(std::size_t bytes) {
  std::uint64_t wanted = std::max(first_ring_bytes, std::uint64_t{bytes});
  {
    guard lock(*this);
    if (!lock) return outcome::busy;
    const state& s = at_->now();
    wanted = std::max(wanted, 2 * (s.tail - s.head + bytes));
  }
  // Without the lock: this may need memory from the system, which may refuse it.
  allocation made = home()->allocate(std::bit_ceil(wanted));
  claim c;
  outcome how = outcome::busy;
  try {
    c = home()->share(made.ref, true);
    guard lock(*this);
    const state& s = at_->now();
    const std::uint64_t size = made.bytes / record_unit * record_unit;
    if (lock && s.tail - s.head + bytes <= size) {
      at_->ring = c;
      at_->old_ring = s.ring;
      at_->note(layout::work::replacing);
      step<point::queue_ring_noted>();
      home()->keep_in(c, self_);
      step<point::queue_ring_kept>();
      state next = s;
      next.head = 0;
      next.tail = 0;
      for (std::uint64_t at = s.head; at < s.tail;) {
        const record& r = read(s, at, s.tail);
        std::memcpy(made.data + next.tail, &r, r.size);
        next.tail += r.size;
        at += r.size;
      }
      next.ring = c;
      next.ring_bytes = size;
      step<point::queue_ring_copied>();
      at_->commit(next);
      step<point::queue_ring_committed>();
      home()->give_back_kept(at_->old_ring);
      at_->done();
      step<point::queue_ring_done>();
      how = outcome::done;
    }
  } catch (...) {
    if (c.lease != no_lease) home()->give_back(c);
    home()->release(made.ref);
    throw;
  }
  if (how != outcome::done) home()->give_back(c);
  home()->release(made.ref);  // the lease keeps it
  return how;
}

}  // namespace sharedmem
