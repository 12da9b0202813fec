/// Whether there is enough memory. This is checked before a block is allocated, because the kernel allocates pages
/// only when they are touched, and kills a process if it has none left; here that becomes an exception. The result is an
/// estimate: the smaller of MemAvailable and what cgroups leave, minus what the arenas of this process have allocated
/// and was not touched yet.
#include <algorithm>
#include <charconv>
#include <mutex>
#include <set>
#include <string>
#include <string_view>

#include <sharedmem/home.hpp>

#include "os/memory.hpp"

#include "os/machine.hpp"
#include "os/wiped.hpp"
#include "state.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;

/// The arenas of this process: a singly linked list, under the lock below. A child may be forked while another thread
/// changes the list, and finds the lock free; therefore each change is one store, after which the list is consistent.
arena::state* first_in_budget = nullptr;

/// The last lock in the order of locks.
std::mutex& budget_lock() {
  static auto* const lock = make_wiped<std::mutex>();  // outlives every arena
  return *lock;
}

}  // namespace

std::string size_text(std::uint64_t bytes) {
  constexpr const char* units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= 1024 && unit < 6) {
    value /= 1024;
    ++unit;
  }
  char text[32];  // snprintf would write the locale's decimal point
  const auto written =
      std::to_chars(text, text + sizeof text, value, std::chars_format::fixed, unit == 0 ? 0 : 1);
  return std::string(text, written.ptr) + " " + units[unit];
}

/// Bytes of the chunks that all processes together have claimed.
std::uint64_t arena::state::claimed_bytes() const noexcept {
  const header& h = words.head();
  const std::uint64_t mark = h.chunk_mark.load(relaxed);
  std::uint64_t missing = std::min(mark, h.unclaimed.load(relaxed));
  for (std::uint32_t k = 0; k < words.extents(); ++k) {
    const extent& e = words.at(k);
    if (e.lost())  // its chunks are below the mark but do not exist any more
      missing += std::clamp<std::uint64_t>(mark, e.first_chunk, e.first_chunk + e.chunks) - e.first_chunk;
  }
  return (mark - std::min(mark, missing)) * chunk_bytes;
}

/// Bytes of arrays whose pages were not written yet.
std::uint64_t arena::state::promised_bytes() const noexcept {
  if constexpr (os::memory_is_promised) return 0;  // the system counts committed memory as used
  // In this order, memory that others touch or claim meanwhile counts twice rather than not at all.
  const std::uint64_t there = resident();
  const std::uint64_t claimed = claimed_bytes();
  return claimed > there ? claimed - there : 0;
}

void arena::state::enter_budget() noexcept {
  const std::lock_guard lock(budget_lock());
  next_in_budget = first_in_budget;
  first_in_budget = this;
}

void arena::state::leave_budget() noexcept {
  const std::lock_guard lock(budget_lock());
  for (state** at = &first_in_budget; *at != nullptr; at = &(*at)->next_in_budget) {
    if (*at != this) continue;
    *at = next_in_budget;
    return;
  }
}

namespace {

/// Bytes of arrays that were not written yet, in the arenas of this process for which `counts` is true.
template <class Counts>
std::uint64_t promised_where(Counts&& counts) noexcept {
  const std::lock_guard lock(budget_lock());
  std::uint64_t bytes = 0;
  for (const arena::state* each = first_in_budget; each != nullptr; each = each->next_in_budget)
    if (counts(*each)) bytes += each->promised_bytes();
  return bytes;
}

}  // namespace

std::uint64_t arena::state::promised_by_others() const noexcept {
  return promised_where([this](const state& each) { return each.where.uuid != where.uuid; });
}

std::uint64_t available_bytes() noexcept {
  const std::uint64_t promised = promised_where([](const arena::state&) { return true; });
  const std::uint64_t available = available_memory().available;
  return available - std::min(available, promised);
}

void arena::state::reserve_memory(std::uint64_t bytes, std::uint64_t asked) {
  const std::uint64_t now = monotonic_ns();
  if (now < look_holds_until) {
    const std::uint64_t claimed = claimed_bytes();
    if (claimed <= claims_allowed && bytes <= claims_allowed - claimed) return;
  }
  // In this order, memory that others touch or claim meanwhile counts twice rather than not at all.
  const std::uint64_t elsewhere = promised_by_others();
  const std::uint64_t there = os::memory_is_promised ? UINT64_MAX : resident();
  const memory_estimate estimate = available_memory();
  const std::uint64_t claimed = claimed_bytes();
  const std::uint64_t promised = (claimed > there ? claimed - there : 0) + elsewhere;
  const std::uint64_t left = estimate.available > promised ? estimate.available - promised : 0;
  if (bytes > left) {
    const bool by_cgroup = std::string_view(estimate.limit) == "cgroup";
    throw no_memory("cannot allocate " + size_text(asked) + " (" + std::to_string(asked) +
                    " bytes) of shared memory: " + size_text(left) + " (" + std::to_string(left) +
                    " bytes) are available, limited by " + estimate.limit + " (" + size_text(estimate.total) +
                    " in all, " + size_text(promised) +
                    " promised to arrays not yet written); free arrays, or " +
                    (by_cgroup ? "raise the cgroup's limit (memory.max, docker run --memory)"
                               : "free memory of other programs") +
                    in_flight_text());
  }
  claims_allowed = claimed + bytes + (left - bytes) / 8;
  look_holds_until = now + look_interval_ns;
}

/// Examines the leases only after as many bytes were sent as the last examination left.
void arena::state::check_in_flight(std::uint64_t bytes) {
  const std::uint64_t limit = in_flight_limit.load(relaxed);
  if (limit == UINT64_MAX) return;
  std::uint64_t left = in_flight_left.load(relaxed);
  if (left < bytes) {
    std::set<std::uint32_t> seen;
    std::uint64_t kept = 0;
    refs.rules.leases.each([&](std::uint32_t, lease_word v, auto* e) {
      if (v.state != lease_state::out || v.slot != peers.slot()) return;
      if (seen.insert(static_cast<std::uint32_t>(e[at_what].load(relaxed) >> 32)).second)
        kept += e[at_lease_bytes].load(relaxed) & ~copied_message;
    });
    if (kept >= limit)
      throw no_memory("cannot send " + size_text(bytes) +
                      " of shared memory: messages of this process keep " + size_text(kept) +
                      ", the limit is " + size_text(limit) + " (SHAREDMEM_IN_FLIGHT_LIMIT)" +
                      in_flight_text());
    left = limit - kept;
  }
  in_flight_left.store(left - std::min(left, bytes), relaxed);
}

void arena::limit_in_flight(std::uint64_t bytes) noexcept {
  s_->in_flight_limit.store(bytes, relaxed);
  s_->in_flight_left.store(0, relaxed);
}

void arena::state::no_room(std::uint64_t asked, const std::string& why) {
  const header& h = words.head();
  const std::uint64_t mark = h.chunk_mark.load(relaxed);
  const std::uint64_t total = words.chunk_count();
  const std::uint64_t unclaimed =
      std::min(mark, h.unclaimed.load(relaxed)) + (total > mark ? total - mark : 0);
  throw no_memory(
      "cannot allocate " + size_text(asked) + " (" + std::to_string(asked) +
      " bytes) of shared memory: the arena has " + size_text(unclaimed * chunk_bytes) + " of " +
      size_text(total * chunk_bytes) + " left, not all of it in one piece, and " + why +
      "; limited by the size of the arena (SHAREDMEM_ARENA_SIZE) or the address space (ulimit -v: " +
      (address_space_left() == UINT64_MAX ? std::string("unlimited")
                                          : size_text(address_space_left()) + " left") +
      ")" + in_flight_text());
}

}  // namespace sharedmem
