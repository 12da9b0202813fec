#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <sharedmem/queue.hpp>

#include "os/identity.hpp"
#include "queue_layout.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;

std::uint64_t word_of(std::uint32_t pid, queue::wanted what) noexcept {
  return std::uint64_t{pid} << 32 | static_cast<std::uint64_t>(what);
}

std::uint32_t pid_in(std::uint64_t word) noexcept { return static_cast<std::uint32_t>(word >> 32); }

bool is_dead(std::uint64_t word) noexcept { return look_at({pid_in(word), 0}) == liveness::dead; }

}  // namespace

listed_sleeper::listed_sleeper(std::span<std::uint64_t, queue::most_listed> words,
                               queue::wanted what) noexcept {
  const std::uint32_t pid = os::pid();
  const std::uint64_t mine = word_of(pid, what);
  for (std::size_t i = 0; i < words.size(); ++i) {
    std::uint64_t* const at = &words[(pid + i) % words.size()];
    std::uint64_t seen = std::atomic_ref(*at).load(relaxed);
    if (seen == 0 && std::atomic_ref(*at).compare_exchange_strong(seen, mine, relaxed)) {
      at_ = at;
      return;
    }
  }
  // Checks one of them, another one each time: repeated sleepers find all words of dead processes sooner or later.
  static std::atomic<std::uint32_t> turn{0};
  std::uint64_t* const at = &words[(pid + turn.fetch_add(1, relaxed)) % words.size()];
  std::uint64_t seen = std::atomic_ref(*at).load(relaxed);
  if (seen != 0 && is_dead(seen) && std::atomic_ref(*at).compare_exchange_strong(seen, mine, relaxed))
    at_ = at;
}

std::vector<queue::sleeper> sleepers_in(std::span<const std::uint64_t, queue::most_listed> words) {
  std::vector<queue::sleeper> found;
  for (const std::uint64_t& each : words) {
    const std::uint64_t seen = __atomic_load_n(&each, __ATOMIC_RELAXED);
    if (seen != 0 && !is_dead(seen)) found.push_back({pid_in(seen), static_cast<queue::wanted>(seen & 0xff)});
  }
  return found;
}

std::vector<queue::sleeper> queue::sleepers() const {
  std::vector<sleeper> found;
  for (std::uint64_t& each : at_->sleepers) {
    std::uint64_t seen = std::atomic_ref(each).load(relaxed);
    if (seen == 0) continue;
    if (is_dead(seen)) {
      std::atomic_ref(each).compare_exchange_strong(seen, 0, relaxed);
    } else {
      found.push_back({pid_in(seen), static_cast<wanted>(seen & 0xff)});
    }
  }
  return found;
}

}  // namespace sharedmem
