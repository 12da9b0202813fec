#pragma once
/// \file
/// What this process has under way of the data that it sends in place of pickled bytes, and the bound on that.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <mutex>

#include <sharedmem/arena.hpp>
#include <sharedmem_pyx/forking.hpp>

namespace sharedmem_pyx {

/// The settings of `sharedmem.transport`. Every field may change while messages are pickled.
struct transport_settings {
  /// Bytes of data from which on a message is sent so; 0: none is.
  std::atomic<std::uint64_t> min_bytes{0};
  /// Arrays of at least this size arrive in shared memory, not copied out.
  std::atomic<std::uint64_t> zero_copy_from{0};
  /// Bytes that may be under way.
  std::atomic<std::uint64_t> limit{0};
};

/// Counts for `sharedmem.stats`, of messages that this process pickled completely; a forked child begins at 0.
struct transport_counts {
  /// Messages that carried data through the arena.
  std::atomic<std::uint64_t> messages{0};
  /// Bytes of that data.
  std::atomic<std::uint64_t> bytes{0};
  /// Messages of which data went by the pipe since something refused it.
  std::atomic<std::uint64_t> by_pipe{0};
};

inline transport_settings settings;
inline transport_counts counts;

/// The blocks that this process has sent and that were not loaded yet, each with its lease.
/// An entry stays until `admit` or `bytes` find that its lease is no longer out.
/// Threads: any; one lock, held while the entries are examined.
/// Processes: a forked child starts with nothing under way, since what its parent sent is its parent's.
class under_way {
 public:
  /// Whether another `bytes` may be under way within `limit`; if so they count from now on, until `withdraw` or
  /// until the lease given to `enter` is no longer out.
  bool admit(std::uint64_t bytes, std::uint64_t limit) {
    const std::lock_guard lock(lock_);
    drop_oldest();
    if (bytes <= limit && sum_ > limit - bytes) drop_all_now_and_then();
    if (bytes > limit || sum_ > limit - bytes) return false;
    sum_ += bytes;
    return true;
  }
  /// What was admitted is kept by this lease. \throws std::bad_alloc
  void enter(sharedmem::arena* home, const sharedmem::claim& c, std::uint64_t bytes) {
    const std::lock_guard lock(lock_);
    sent_.push_back({home, c, bytes});
  }
  /// What was admitted is not sent after all.
  void withdraw(std::uint64_t bytes) noexcept {
    const std::lock_guard lock(lock_);
    sum_ -= bytes;
  }
  std::uint64_t bytes() noexcept {
    const std::lock_guard lock(lock_);
    drop_all();
    return sum_;
  }

 private:
  struct entry {
    sharedmem::arena* home;  // this process allocated in it, and so keeps it attached until its end
    sharedmem::claim lease;
    std::uint64_t bytes;
  };

  bool gone(const entry& e) const noexcept { return !e.home->is_in_flight(e.lease); }

  /// Most messages are loaded in the order in which they were sent.
  void drop_oldest() noexcept {
    while (!sent_.empty() && gone(sent_.front())) {
      sum_ -= sent_.front().bytes;
      sent_.pop_front();
    }
  }
  /// Where messages are not read, each that is sent would look at all of them: at most a twentieth of the time is
  /// spent on that.
  void drop_all_now_and_then() noexcept {
    const auto start = clock::now();
    if (start < next_) return;
    drop_all();
    const auto end = clock::now();
    next_ = end + 19 * (end - start);
  }
  void drop_all() noexcept {
    std::erase_if(sent_, [this](const entry& e) {
      if (!gone(e)) return false;
      sum_ -= e.bytes;
      return true;
    });
  }

  using clock = std::chrono::steady_clock;

  std::mutex lock_;
  std::deque<entry> sent_;
  std::uint64_t sum_ = 0;
  clock::time_point next_{};  // when all entries may be looked at again
};

/// What this process has under way. A forked child's is a new one: a thread of the parent may have held the lock. The
/// copy of the parent's is not freed.
inline under_way* mine = new under_way;
inline const int renewing_mine = at_fork(nullptr, nullptr, [] {
  mine = new under_way;
  for (auto* each : {&counts.messages, &counts.bytes, &counts.by_pipe}) each->store(0);
});

}  // namespace sharedmem_pyx
