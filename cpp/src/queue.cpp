#include <sharedmem/queue.hpp>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include <sharedmem/error.hpp>
#include <sharedmem/futex.hpp>
#include <sharedmem/home.hpp>

#include "os/machine.hpp"
#include "shared/fault.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto as_release = std::memory_order_release;
constexpr std::uint64_t queue_magic = 0x0100'4555'4555'516d;  // "mQUEUE", a version
constexpr std::uint64_t first_ring_bytes = 16 * 1024;
constexpr std::uint64_t large_ring_bytes = 4 * 1024 * 1024;
constexpr std::uint64_t unit = 16;  // records begin at multiples of it
constexpr std::uint32_t no_message = 1, in_block_flag = 2;
constexpr std::size_t most_at_once = 16 * 1024 * 1024;  // bytes that `try_get` copies with the lock held
constexpr int lock_spins = 200, wait_spins = 400;  // some microseconds

constexpr std::uint64_t round_up(std::uint64_t bytes) noexcept { return (bytes + unit - 1) / unit * unit; }

inline void pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// A word that some sleep on, and whether perhaps somebody does.
struct alignas(64) bell {
  std::uint32_t word = 0;
  std::uint32_t sleepers = 0;

  std::uint32_t load(std::memory_order how) noexcept { return std::atomic_ref(word).load(how); }
  /// With the queue's lock: the caller is about to sleep.
  std::uint32_t expect() noexcept {
    std::atomic_ref s(sleepers);
    const std::uint32_t next = s.load(relaxed) + 1;
    s.store(next == 0 ? 1 : next, relaxed);
    return load(relaxed);
  }
  /// With the lock, after a commit. The value is for `ring`; 0: nobody sleeps.
  std::uint32_t change() noexcept {
    std::atomic_ref w(word);
    w.store(w.load(relaxed) + 1, as_release);
    return std::atomic_ref(sleepers).load(relaxed);
  }
  /// Without the lock. Who is about to sleep finds the word changed; who came later has changed `sleepers`.
  void ring(std::uint32_t seen, int count) noexcept {
    if (seen == 0) return;
    if (wake(&word, count) == 0) std::atomic_ref(sleepers).compare_exchange_strong(seen, 0, relaxed);
  }
};

void wait_on_bell(const bell& b, std::uint32_t seen, std::chrono::nanoseconds limit) {
  for (int i = 0; i < wait_spins; ++i) {
    if (__atomic_load_n(&b.word, __ATOMIC_ACQUIRE) != seen) return;
    pause();
  }
  (void)wait_on(&b.word, seen, std::min<std::chrono::nanoseconds>(limit, queue::longest_wait));
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

/// What the queue consists of at a moment.
struct queue::state {
  std::uint64_t head, tail;  // bytes taken and put, of records; their places are these modulo `ring_bytes`
  std::uint64_t taken, put;  // messages
  std::uint64_t unfinished;
  std::uint64_t bytes;  // of the messages that are there
  std::uint64_t ring_bytes;
  claim ring;
};

/// A message in the ring: this, then its claims, then its bytes unless these are in a block.
struct queue::record {
  std::uint32_t size;  // of all of it, a multiple of `unit`
  std::uint32_t flags;  // with `no_message` the rest is not there: unused bytes before the ring's end
  std::uint32_t claims;
  std::uint32_t reserved;
  std::uint64_t length;
  std::uint64_t checksum;
  std::uint64_t number;
};

struct queue::layout {
  enum class work : std::uint32_t { nothing, putting, taking, replacing };

  std::uint64_t magic;
  std::uint64_t most;
  alignas(64) std::byte mutex[robust_mutex::bytes];
  bell messages;  // rung after `put`
  bell room;      // after `get`
  bell tasks;     // when there is no unfinished task
  alignas(64) std::uint32_t valid;  // which of the states; a store of this is the commit
  work doing;                       // what the owner of the lock has in hand,
  std::uint64_t from, to;           // messages of these bytes,
  claim ring;                       // or this ring, in exchange for `old_ring`
  claim old_ring;
  alignas(64) state states[2];

  state& now() noexcept { return states[valid & 1]; }
  state& next() noexcept { return states[~valid & 1]; }
  // What a killed process leaves is what it did up to some instruction: the compiler must not move stores across these.
  void commit() noexcept {
    in_order([this] { std::atomic_ref(valid).store(~valid & 1, as_release); });
  }
  void note(work what) noexcept {
    in_order([&] { std::atomic_ref(doing).store(what, as_release); });
  }
  template <class F>
  static void in_order(F&& store) noexcept {
    std::atomic_signal_fence(std::memory_order_seq_cst);
    store();
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
  void done() noexcept { note(work::nothing); }
};

/// The lock, for a scope, unless another has it.
class queue::guard {
 public:
  explicit guard(queue& q) : mutex_{q.mutex_} {
    auto how = mutex_.try_lock();
    for (int i = 0; i < lock_spins && how == robust_mutex::outcome::busy; ++i) {
      pause();
      how = mutex_.try_lock();
    }
    held_ = how != robust_mutex::outcome::busy;
    if (!held_) return;
    step<point::queue_locked>();
    // Also if nobody was found dead: whoever settles may be killed, too, or the memory may be used up there.
    if (q.at_->doing == layout::work::nothing) return;
    try {
      q.repair();
    } catch (...) {
      unlock();
      throw;
    }
  }
  guard(const guard&) = delete;
  guard& operator=(const guard&) = delete;
  ~guard() { unlock(); }
  void unlock() noexcept {
    if (!std::exchange(held_, false)) return;
    mutex_.unlock();
    step<point::queue_unlocked>();
  }
  explicit operator bool() const noexcept { return held_; }

 private:
  robust_mutex mutex_;
  bool held_ = false;
};

// ---- life

void queue::create(allocation& block, std::uint64_t most) {
  static_assert(sizeof(layout) <= block_bytes && std::is_trivially_copyable_v<state>);
  static_assert(sizeof(record) == 40);
  block_ = std::exchange(block, {});
  self_ = block_.ref.home->share(block_.ref, false);
  std::memset(block_.data, 0, block_bytes);
  at_ = reinterpret_cast<layout*>(block_.data);
  at_->most = most;
  allocation ring = home()->allocate(first_ring_bytes);
  try {
    const claim c = home()->share(ring.ref, true);
    home()->keep_in(c, self_);
    at_->states[0].ring = c;
  } catch (...) {
    home()->release(ring.ref);
    throw;
  }
  at_->states[0].ring_bytes = ring.bytes / unit * unit;
  ring_block_ = ring;
  ring_claim_ = at_->states[0].ring;
  mutex_ = robust_mutex::create(at_->mutex);
  std::atomic_ref(at_->magic).store(queue_magic, as_release);
}

void queue::open(allocation& block) {
  block_ = std::exchange(block, {});
  auto* at = reinterpret_cast<layout*>(block_.data);
  if (block_.bytes < block_bytes || at->magic != queue_magic)
    throw std::invalid_argument(
        "there is no queue in this memory, or it is one of another version of the library");
  self_ = home()->share(block_.ref, false);
  mutex_ = robust_mutex::open(at->mutex);
  at_ = at;
}

void queue::close() noexcept {
  at_ = nullptr;
  if (block_.ref.home == nullptr) return;
  const attached_arenas all;  // the arena stays until the end of this function
  arena* const a = home();
  if (ring_block_.ref.home != nullptr) sharedmem::release(ring_block_.ref);
  sharedmem::release(block_.ref);
  a->drop_unkept();
}

std::uint64_t queue::most() const noexcept { return at_->most; }

// ---- the ring

std::size_t queue::bytes_in_ring(const queue_message& m) noexcept {
  return static_cast<std::size_t>(
      round_up(sizeof(record) + m.claims.size_bytes() + (m.in_block ? 0 : m.bytes.size())));
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
  if (bytes < first_ring_bytes || bytes > ring_block_.bytes || bytes % unit != 0)
    throw corrupted("the ring of a queue makes no sense: a stray write hit it");
  return ring_block_.data;
}

/// The record at byte `at` of those that are put up to `end`, checked.
const queue::record& queue::read(const state& s, std::uint64_t at, std::uint64_t end) {
  const std::byte* start = ring(s.ring, s.ring_bytes);
  const std::uint64_t place = at % s.ring_bytes;
  const auto& r = *reinterpret_cast<const record*>(start + place);
  const std::uint64_t most = std::min(s.ring_bytes - place, end - at);
  bool sound = at % unit == 0 && most >= unit && r.size >= unit && r.size % unit == 0 && r.size <= most;
  if (sound && (r.flags & no_message) == 0) {
    const std::uint64_t bytes = (r.flags & in_block_flag) != 0 ? 0 : r.length;
    sound = r.size >= sizeof(record) && r.claims <= r.size / sizeof(claim) && bytes <= r.size &&
            sizeof(record) + r.claims * sizeof(claim) + bytes <= r.size &&
            ((r.flags & in_block_flag) == 0 || r.claims != 0);
  }
  if (!sound) throw corrupted("a message of a queue makes no sense: a stray write hit it");
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

/// Where a record of so many bytes goes: at the tail, or at the ring's start if there is too little before its end.
std::uint64_t queue::position(const state& s, std::uint64_t bytes, bool& fits) const noexcept {
  const std::uint64_t before_end = s.ring_bytes - s.tail % s.ring_bytes;
  const std::uint64_t at = bytes <= before_end ? s.tail : s.tail + before_end;
  fits = at + bytes - s.head <= s.ring_bytes;
  return at;
}

// ---- what a dead owner of the lock left

void queue::repair() {
  state& s = at_->now();
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
      const bool committed = s.ring.block == at_->ring.block && s.ring.generation == at_->ring.generation;
      home()->give_back_kept(committed ? at_->old_ring : at_->ring);
      break;
    }
  }
  at_->done();
  step<point::queue_repaired>();
}

// ---- operations

bool queue::put_one(const queue_message& m) {
  const state& s = at_->now();
  const std::uint64_t bytes = bytes_in_ring(m);
  std::byte* start = ring(s.ring, s.ring_bytes);
  bool fits = false;
  const std::uint64_t at = position(s, bytes, fits);
  if (!fits) return false;
  if (at != s.tail) {
    auto* unused = reinterpret_cast<record*>(start + s.tail % s.ring_bytes);
    unused->size = static_cast<std::uint32_t>(at - s.tail);
    unused->flags = no_message;
  }
  auto* r = reinterpret_cast<record*>(start + at % s.ring_bytes);
  *r = {static_cast<std::uint32_t>(bytes),
        m.in_block ? in_block_flag : 0,
        static_cast<std::uint32_t>(m.claims.size()),
        0,
        m.length,
        m.checksum,
        s.put};
  auto* body = reinterpret_cast<std::byte*>(r + 1);
  if (!m.claims.empty()) std::memcpy(body, m.claims.data(), m.claims.size_bytes());
  if (!m.in_block && !m.bytes.empty())
    std::memcpy(body + m.claims.size_bytes(), m.bytes.data(), m.bytes.size());
  step<point::queue_written>();
  if (!m.claims.empty()) {
    at_->from = s.tail;
    at_->to = at + bytes;
    at_->note(layout::work::putting);
    step<point::queue_put_noted>();
    for (const claim& c : m.claims) home()->keep_in(c, self_);
    step<point::queue_leases_kept>();
  }
  state& next = at_->next();
  next = s;
  next.tail = at + bytes;
  ++next.put;
  ++next.unfinished;
  next.bytes += m.length;
  at_->commit();
  step<point::queue_put_committed>();
  if (!m.claims.empty()) at_->done();
  step<point::queue_put_done>();
  return true;
}

queue::outcome queue::try_put(std::span<const queue_message> messages, std::size_t& put,
                              std::uint32_t& seen) {
  put = 0;
  guard lock(*this);
  if (!lock) return outcome::busy;
  outcome how = outcome::done;
  for (const queue_message& m : messages) {
    const state& s = at_->now();
    if (at_->most != 0 && s.put - s.taken >= at_->most) {
      how = outcome::nothing;
      break;
    }
    if (!put_one(m)) {
      how = outcome::no_ring;
      break;
    }
    ++put;
  }
  if (how == outcome::nothing) seen = at_->room.expect();
  const std::uint32_t sleepers = put == 0 ? 0 : at_->messages.change();
  const int count = static_cast<int>(std::min<std::size_t>(put, 1U << 20));
  lock.unlock();
  at_->messages.ring(sleepers, count);
  return how;
}

/// \pre  there is a message.
void queue::get_one(queue_taken& out) {
  const state& s = at_->now();
  std::uint64_t at = s.head;
  const record* r = &read(s, at, s.tail);
  while ((r->flags & no_message) != 0) {
    at += r->size;
    r = &read(s, at, s.tail);
  }
  queue_entry e;
  e.number = r->number;
  e.length = r->length;
  e.checksum = r->checksum;
  e.claims = r->claims;
  e.in_block = (r->flags & in_block_flag) != 0;
  e.bytes_at = out.bytes.size();
  e.claims_at = out.claims.size();
  const auto* claims = reinterpret_cast<const claim*>(r + 1);
  const auto* body = reinterpret_cast<const std::byte*>(claims + e.claims);
  if (out.entries.size() == out.entries.capacity()) out.entries.reserve(2 * out.entries.size() + 1);
  out.claims.insert(out.claims.end(), claims, claims + e.claims);
  if (!e.in_block) out.bytes.insert(out.bytes.end(), body, body + e.length);
  step<point::queue_copied>();
  const std::uint64_t end = at + r->size;
  if (e.claims != 0) {
    at_->from = s.head;
    at_->to = end;
    at_->note(layout::work::taking);
    step<point::queue_get_noted>();
  }
  state& next = at_->next();
  next = s;
  next.head = end;
  ++next.taken;
  next.bytes -= std::min(next.bytes, e.length);
  at_->commit();
  step<point::queue_get_committed>();
  if (e.claims != 0) {
    for (std::size_t i = 0; i < e.claims; ++i) home()->take_from_keeper(out.claims[e.claims_at + i]);
    step<point::queue_leases_taken>();
    at_->done();
  }
  out.entries.push_back(e);
  step<point::queue_get_done>();
}

queue::outcome queue::try_get(std::size_t most, queue_taken& taken, std::uint32_t& seen) {
  guard lock(*this);
  if (!lock) return outcome::busy;
  std::size_t count = 0;
  for (; count < most && at_->now().put != at_->now().taken && taken.bytes.size() < most_at_once; ++count) {
    try {
      get_one(taken);
    } catch (...) {
      if (count == 0) throw;  // else the others first
      break;
    }
  }
  if (count == 0) seen = at_->messages.expect();
  const state& s = at_->now();
  large_ = s.ring_bytes > large_ring_bytes && s.tail - s.head < s.ring_bytes / 16;
  const std::uint32_t sleepers = count == 0 || at_->most == 0 ? 0 : at_->room.change();
  lock.unlock();
  at_->room.ring(sleepers, static_cast<int>(std::min<std::size_t>(count, 1U << 20)));
  return count == 0 ? outcome::nothing : outcome::done;
}

queue::outcome queue::set_ring(std::size_t bytes) {
  std::uint64_t wanted = std::max(first_ring_bytes, std::uint64_t{bytes});
  {
    guard lock(*this);
    if (!lock) return outcome::busy;
    const state& s = at_->now();
    wanted = std::max(wanted, 2 * (s.tail - s.head + bytes));
  }
  // Without the lock: the system may be asked for memory, and refuse it.
  allocation made = home()->allocate(std::bit_ceil(wanted));
  claim c;
  outcome how = outcome::busy;
  try {
    c = home()->share(made.ref, true);
    guard lock(*this);
    const state& s = at_->now();
    const std::uint64_t size = made.bytes / unit * unit;
    if (lock && s.tail - s.head + bytes <= size) {
      at_->ring = c;
      at_->old_ring = s.ring;
      at_->note(layout::work::replacing);
      step<point::queue_ring_noted>();
      home()->keep_in(c, self_);
      step<point::queue_ring_kept>();
      state& next = at_->next();
      next = s;
      next.head = 0;
      next.tail = 0;
      for (std::uint64_t at = s.head; at < s.tail;) {
        const record& r = read(s, at, s.tail);
        if ((r.flags & no_message) == 0) {
          std::memcpy(made.data + next.tail, &r, r.size);
          next.tail += r.size;
        }
        at += r.size;
      }
      next.ring = c;
      next.ring_bytes = size;
      step<point::queue_ring_copied>();
      at_->commit();
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

queue::outcome queue::count(counts& found) {
  guard lock(*this);
  if (!lock) return outcome::busy;
  const state& s = at_->now();
  found = {s.put - s.taken, s.unfinished, s.bytes, s.ring_bytes};
  return outcome::done;
}

queue::outcome queue::task_done() {
  guard lock(*this);
  if (!lock) return outcome::busy;
  const state& s = at_->now();
  if (s.unfinished == 0) return outcome::nothing;
  state& next = at_->next();
  next = s;
  --next.unfinished;
  const bool last = next.unfinished == 0;
  at_->commit();
  const std::uint32_t sleepers = last ? at_->tasks.change() : 0;
  lock.unlock();
  at_->tasks.ring(sleepers, 1 << 20);
  return outcome::done;
}

queue::outcome queue::try_join(std::uint32_t& seen) {
  guard lock(*this);
  if (!lock) return outcome::busy;
  if (at_->now().unfinished == 0) return outcome::done;
  seen = at_->tasks.expect();
  return outcome::nothing;
}

// ---- waiting

void queue::wait_for_lock(std::chrono::nanoseconds limit) {
  if (mutex_.try_lock_for(std::min<std::chrono::nanoseconds>(limit, longest_wait)) !=
      robust_mutex::outcome::busy)
    mutex_.unlock();
}

void queue::wait_for_message(std::uint32_t seen, std::chrono::nanoseconds limit) const {
  wait_on_bell(at_->messages, seen, limit);
}

void queue::wait_for_room(std::uint32_t seen, std::chrono::nanoseconds limit) const {
  wait_on_bell(at_->room, seen, limit);
}

void queue::wait_for_tasks(std::uint32_t seen, std::chrono::nanoseconds limit) const {
  wait_on_bell(at_->tasks, seen, limit);
}

}  // namespace sharedmem
