#include "queue_reports.hpp"

#include <atomic>
#include <cstring>
#include <iterator>

#include <sharedmem/home.hpp>

#include "os/machine.hpp"
#include "shared/primary_tables.hpp"
#include "state.hpp"

namespace sharedmem {

bool queue::layout::look(state& found) const noexcept {
  static_assert(sizeof(state) % sizeof(std::uint32_t) == 0);
  constexpr std::size_t words = sizeof(state) / sizeof(std::uint32_t);
  constexpr int looks = 1000;
  const auto read = [this](std::uint32_t which, std::uint32_t (&into)[words]) {
    const auto* from = reinterpret_cast<const std::uint32_t*>(&states[which & 1]);
    for (std::size_t i = 0; i < words; ++i) into[i] = __atomic_load_n(from + i, __ATOMIC_RELAXED);
    std::atomic_thread_fence(std::memory_order_acquire);
    return __atomic_load_n(&valid, __ATOMIC_ACQUIRE) == which;
  };
  for (int i = 0; i < looks; ++i) {
    // Twice the same: after two commits the same copy is valid again, and may have been written meanwhile. The counts
    // in it only rise, so that it is another one then.
    std::uint32_t first[words], second[words];
    const std::uint32_t which = __atomic_load_n(&valid, __ATOMIC_ACQUIRE);
    if (which <= 1 && read(which, first) && read(which, second) &&
        std::memcmp(first, second, sizeof first) == 0) {
      std::memcpy(&found, first, sizeof found);
      if (found.tail - found.head <= found.ring_bytes && found.taken <= found.put) return true;
    }
    spin_pause();
  }
  return false;
}

namespace {

queue::counts counts_of(const queue::state& s) noexcept {
  return {s.put - s.taken, s.unfinished, s.bytes, s.ring_bytes};
}

}  // namespace

bool queue::look(counts& found) const noexcept {
  state s{};
  if (!at_->look(s)) return false;
  found = counts_of(s);
  return true;
}

void read_queue(const queue::layout& at, std::span<const kept_lease> kept, std::uint64_t now,
                queue_report& found) {
  queue::state s{};
  if (__atomic_load_n(&at.magic, __ATOMIC_ACQUIRE) != queue_magic || !at.look(s)) return;
  found.readable = true;
  found.now = counts_of(s);
  found.most = at.most;
  found.maker = at.maker;
  found.age_ns = age_of(at.made, now);
  found.sleepers = sleepers_in(at.sleepers);
  const std::uint64_t ring =
      lease_table<native_atomics, primary_tables>::what(s.ring.block, s.ring.generation);
  for (const kept_lease& k : kept)
    if (k.what != ring) found.kept_bytes += k.bytes;
}

std::vector<queue_report> queues_in(arena& a) {
  arena::state& s = a.parts();
  s.join_if_forked();
  s.words.try_sync();
  const auto slots =
      static_cast<std::uint32_t>(std::min<std::uint64_t>(s.words.slot_mark().load(), s.words.slots()));
  auto found = report_queues(
      s.refs.rules.leases, slots,
      [&](std::uint32_t b) { return s.words.has_block(b) ? s.words.block(b) : nullptr; },
      [&](std::uint32_t b, std::uint64_t place) -> const std::byte* {
        const extent& e = s.words.extent_of_block(b);
        return e.has(place, queue::block_bytes) ? e.data + place : nullptr;
      },
      [&](std::uint32_t slot) -> std::uint32_t {
        const auto w = slot_word::from(s.words.slot(slot).ctl.load());
        return takes_part(w.state) && s.peers.look(w.who) != liveness::dead ? w.who.pid : 0;
      },
      s.repairs.on_arena_clock() ? monotonic_ns() : 0);
  for (queue_report& each : found) each.home = &a;
  return found;
}

std::vector<queue_report> all_queues() {
  const attached_arenas arenas;  // none of them is left meanwhile
  std::vector<queue_report> all;
  for (arena* a : arenas) {
    std::vector<queue_report> found = queues_in(*a);
    std::move(found.begin(), found.end(), std::back_inserter(all));
  }
  return all;
}

}  // namespace sharedmem
