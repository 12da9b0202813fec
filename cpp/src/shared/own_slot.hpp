#pragma once

/// Which process slot of an arena is this process's own.
#include <atomic>
#include <cstdint>

namespace sharedmem {

/// The number lies in a page of private memory that a forked child finds zeroed (madvise(2), MADV_WIPEONFORK),
/// so that a child made without fork handlers notices that it is another process than the one that joined.
/// Threads: any. Processes: fork handlers write the child's number before anything else runs in it.
class own_slot {
 public:
  own_slot() noexcept = default;
  own_slot(const own_slot&) = delete;
  own_slot& operator=(const own_slot&) = delete;
  ~own_slot();

  /// \throws no_memory  the system has no page of private memory.
  void open();
  bool opened() const noexcept { return page_ != nullptr; }

  /// False in a child made without fork handlers that has not joined yet.
  bool known() const noexcept { return page_->number_plus_one.load(std::memory_order_relaxed) != 0; }
  /// \pre known().
  std::uint32_t index() const noexcept { return page_->number_plus_one.load(std::memory_order_relaxed) - 1; }
  void become(std::uint32_t slot) noexcept {
    page_->number_plus_one.store(slot + 1, std::memory_order_relaxed);
  }

  /// While one lives, a thread of such a child joins; the others wait.
  class turn {
   public:
    explicit turn(own_slot& of) noexcept;
    ~turn() { taken_.store(0, std::memory_order_release); }
    turn(const turn&) = delete;
    turn& operator=(const turn&) = delete;

   private:
    std::atomic<std::uint32_t>& taken_;
  };

 private:
  struct page {
    std::atomic<std::uint32_t> number_plus_one;
    std::atomic<std::uint32_t> turn_taken;
  };
  page* page_ = nullptr;
};

}  // namespace sharedmem
