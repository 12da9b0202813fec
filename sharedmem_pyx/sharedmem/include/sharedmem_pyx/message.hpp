#pragma once
/// \file
/// The message that this thread is pickling for a transfer that delivers once.
#include <utility>
#include <vector>

#include <sharedmem/arena.hpp>

namespace sharedmem_pyx {

/// While it lives, handles pickled by this thread take leases; they are given back at its end unless
/// `sent` was called. Messages nest: an object may pickle others on its own while it is pickled.
class message {
 public:
  message() noexcept : outer_{current_} { current_ = this; }
  message(const message&) = delete;
  message& operator=(const message&) = delete;
  ~message() {
    current_ = outer_;
    for (const auto& [arena, claim] : leases_) arena->give_back(claim);
  }

  static message* current() noexcept { return current_; }

  /// Shares the block with a lease that belongs to the message.
  sharedmem::claim share(const sharedmem::block_ref& ref) {
    leases_.emplace_back();  // before the lease: afterwards nothing may fail
    try {
      leases_.back() = {ref.home, ref.home->share(ref, true)};
    } catch (...) {
      leases_.pop_back();
      throw;
    }
    return leases_.back().second;
  }

  /// From now on the leases belong to whoever loads the message.
  void sent() noexcept { leases_.clear(); }

 private:
  inline static thread_local message* current_ = nullptr;

  message* outer_;
  std::vector<std::pair<sharedmem::arena*, sharedmem::claim>> leases_;
};

}  // namespace sharedmem_pyx
