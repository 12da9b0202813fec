#include <sharedmem/queue.hpp>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include <sharedmem/error.hpp>
#include <sharedmem/futex.hpp>
#include <sharedmem/home.hpp>

#include "os/identity.hpp"
#include "os/machine.hpp"
#include "queue_layout.hpp"

namespace sharedmem {

using std::chrono::nanoseconds;
using std::chrono::steady_clock;

namespace {

constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto as_release = std::memory_order_release;
constexpr std::uint64_t large_ring_bytes = 4 * 1024 * 1024;
constexpr std::size_t most_at_once = 16 * 1024 * 1024;  // bytes that `try_get` copies with the lock held

// Being woken by the kernel takes 5 to 20 us, and waking costs the other thread some of that. Polling for that long is
// cheaper if the word changes meanwhile, and useless otherwise: on a busy machine, or before a message that takes
// long. So a thread polls for long if its last poll saw a change, and now and then where waits are short anyway.
constexpr nanoseconds long_look{20'000};
constexpr nanoseconds short_look{500};
constexpr nanoseconds short_wait{100'000};
constexpr std::uint8_t looks_after_success = 8;
constexpr std::uint8_t short_waits_for_a_look = 16;

/// Whether the word changed within the time.
bool look_at(const queue_bell& b, std::uint32_t seen, steady_clock::time_point end) {
  do {
    for (int i = 0; i < 8; ++i) {
      if (__atomic_load_n(&b.word, __ATOMIC_ACQUIRE) != seen) return true;
      spin_pause();
    }
  } while (steady_clock::now() < end);
  return false;
}

}  // namespace

// ---- life

void queue::create(allocation& block, std::uint64_t most) {
  static_assert(sizeof(layout) <= block_bytes && std::is_trivially_copyable_v<state>);
  static_assert(sizeof(record) == 40);
  block_ = std::exchange(block, {});
  self_ = block_.ref.home->share(block_.ref, false);
  std::memset(block_.data, 0, block_bytes);
  at_ = reinterpret_cast<layout*>(block_.data);
  at_->most = most;
  at_->made = monotonic_ns();
  at_->maker = os::pid();
  allocation ring = home()->allocate(first_ring_bytes);
  try {
    const claim c = home()->share(ring.ref, true);
    home()->keep_in(c, self_);
    at_->states[0].ring = c;
  } catch (...) {
    home()->release(ring.ref);
    throw;
  }
  at_->states[0].ring_bytes = ring.bytes / record_unit * record_unit;
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

// ---- operations

/// `s`: the valid state, before and after. `start`: of its ring.
bool queue::put_one(const queue_message& m, state& s, std::byte* start) noexcept {
  const std::uint64_t bytes = bytes_in_ring(m);
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
  s.tail = at + bytes;
  ++s.put;
  ++s.unfinished;
  s.bytes += m.length;
  at_->commit(s);
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
  // All that can throw comes before the first message, or the bell would not be rung for those that are there.
  state s = at_->now();
  std::byte* const start = ring(s.ring, s.ring_bytes);
  outcome how = outcome::done;
  for (const queue_message& m : messages) {
    if (at_->most != 0 && s.put - s.taken >= at_->most) {
      how = outcome::nothing;
      break;
    }
    if (!put_one(m, s, start)) {
      how = outcome::no_ring;
      break;
    }
    ++put;
  }
  if (how == outcome::nothing) seen = at_->room.load(relaxed);
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
  state next = s;
  next.head = end;
  ++next.taken;
  next.bytes -= std::min(next.bytes, e.length);
  at_->commit(next);
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
  if (count == 0) seen = at_->messages.load(relaxed);
  const state& s = at_->now();
  large_ = s.ring_bytes > large_ring_bytes && s.tail - s.head < s.ring_bytes / 16;
  const std::uint32_t sleepers = count == 0 || at_->most == 0 ? 0 : at_->room.change();
  lock.unlock();
  at_->room.ring(sleepers, static_cast<int>(std::min<std::size_t>(count, 1U << 20)));
  return count == 0 ? outcome::nothing : outcome::done;
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
  state next = s;
  --next.unfinished;
  const bool last = next.unfinished == 0;
  at_->commit(next);
  const std::uint32_t sleepers = last ? at_->tasks.change() : 0;
  lock.unlock();
  at_->tasks.ring(sleepers, 1 << 20);
  return outcome::done;
}

queue::outcome queue::try_join(std::uint32_t& seen) {
  guard lock(*this);
  if (!lock) return outcome::busy;
  if (at_->now().unfinished == 0) return outcome::done;
  seen = at_->tasks.load(relaxed);
  return outcome::nothing;
}

// ---- waiting

void queue::wait_for_lock(std::chrono::nanoseconds limit) {
  if (mutex_.try_lock_for(std::min<std::chrono::nanoseconds>(limit, longest_wait)) !=
      robust_mutex::outcome::busy)
    mutex_.unlock();
}

void queue::wait_on_bell(queue_bell& b, std::uint32_t seen, nanoseconds limit, wanted what) {
  const auto start = steady_clock::now();
  const std::uint8_t looks = looks_.load(relaxed);
  if (look_at(b, seen, start + std::min(limit, looks != 0 ? long_look : short_look))) {
    if (looks != looks_after_success) looks_.store(looks_after_success, relaxed);
    return;
  }
  {
    // The thread that rings makes a system call if a sleeper is announced, so none is announced before it sleeps.
    guard lock(*this);
    if (!lock || b.load(relaxed) != seen) return;
    b.expect();
  }
  {
    const listed_sleeper me(at_->sleepers, what);
    (void)wait_on(&b.word, seen, std::min<nanoseconds>(limit, longest_wait));
  }
  if (looks != 0) {
    looks_.store(looks - 1, relaxed);
  } else if (steady_clock::now() - start < short_wait) {
    const std::uint8_t before = short_waits_.load(relaxed);
    const bool enough = before + 1 >= short_waits_for_a_look;
    short_waits_.store(enough ? 0 : before + 1, relaxed);
    if (enough) looks_.store(1, relaxed);
  }
}

void queue::wait_for_message(std::uint32_t seen, nanoseconds limit) {
  wait_on_bell(at_->messages, seen, limit, wanted::message);
}

void queue::wait_for_room(std::uint32_t seen, nanoseconds limit) {
  wait_on_bell(at_->room, seen, limit, wanted::room);
}

void queue::wait_for_tasks(std::uint32_t seen, nanoseconds limit) {
  wait_on_bell(at_->tasks, seen, limit, wanted::tasks);
}

}  // namespace sharedmem
