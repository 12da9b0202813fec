#pragma once

/// What this process holds: for each published block its reference count here and its generation.
/// Private memory, found by block index in two steps; pages of it exist for blocks that were held.
/// Threads: one record is used under its stripe's lock; the index grows without one.
#include <atomic>
#include <cstdint>
#include <new>

#include "heap/zero_table.hpp"
#include "os/machine.hpp"
#include "shared/raise_mark.hpp"

namespace sharedmem {

struct record {
  std::uint32_t count = 0;  // 0: this process holds no bit of the block
  bool carried = false;     // see arena::mark_carried; unspecified while `count` is 0
  std::uint64_t generation = 0;
};

class records {
 public:
  static constexpr std::uint32_t per_page = 1024;

  void reserve(std::uint64_t blocks) {
    index_.reserve((blocks + per_page - 1) / per_page);
    written_.reserve(index_.size());
  }
  ~records() { clear(); }

  record* find(std::uint32_t b) const noexcept {
    if (b / per_page >= index_.size()) return nullptr;
    record* page = index_[b / per_page].load(std::memory_order_acquire);
    return page == nullptr ? nullptr : page + b % per_page;
  }

  /// The record of a block, to be written. \throws std::bad_alloc
  record& at(std::uint32_t b) {
    make_page(b);
    return ready(b);
  }

  /// As `at`, for a block that `make_ready` was called for.
  record& ready(std::uint32_t b) noexcept {
    written_[b / per_page].store(true, std::memory_order_relaxed);
    return *find(b);
  }

  /// From now on `find` has a record for each of [first, first + count), until `clear`. Reserves addresses only: memory is
  /// taken for the records that are written. \throws std::bad_alloc
  void make_ready(std::uint32_t first, std::uint32_t count) {
    for (std::uint32_t page = first / per_page; page <= (first + count - 1) / per_page; ++page)
      make_page(page * per_page);
  }

  /// Calls f(block, record&) for every block held, after `soon(block)` for a few that come next.
  template <class F, class Soon>
  void each_held(F&& f, Soon&& soon) const {
    constexpr std::uint32_t ahead = 8;
    const std::size_t used = used_.load(std::memory_order_acquire);
    for (std::size_t k = 0; k < used; ++k) {
      record* page = index_[k].load(std::memory_order_acquire);
      if (page == nullptr || !written_[k].load(std::memory_order_relaxed)) continue;
      const auto base = static_cast<std::uint32_t>(k * per_page);
      for (std::uint32_t i = 0; i < per_page; ++i) {
        if (i + ahead < per_page && page[i + ahead].count != 0) soon(base + i + ahead);
        if (page[i].count != 0) f(base + i, page[i]);
      }
    }
  }
  template <class F>
  void each_held(F&& f) const {
    each_held(f, [](std::uint32_t) {});
  }

  /// Forgets all records.
  void clear() noexcept {
    for (std::size_t k = used_.exchange(0); k-- > 0;) {
      written_[k].store(false, std::memory_order_relaxed);
      if (record* page = index_[k].exchange(nullptr, std::memory_order_acq_rel))
        unmap_private(page, page_size);
    }
  }

 private:
  static constexpr std::size_t page_size = per_page * sizeof(record);

  void make_page(std::uint32_t b) {
    std::atomic<record*>& place = index_[b / per_page];
    record* page = place.load(std::memory_order_acquire);
    if (page != nullptr) return;
    auto* fresh = static_cast<record*>(map_private(page_size));
    if (fresh == nullptr) throw std::bad_alloc();
    raise_mark(used_, b / per_page + 1);
    if (!place.compare_exchange_strong(page, fresh, std::memory_order_acq_rel))
      unmap_private(fresh, page_size);
  }

  zero_table<std::atomic<record*>> index_;
  zero_table<std::atomic<bool>> written_;  // pages with records that were written: the others hold nothing
  std::atomic<std::size_t> used_{0};  // pages from there on do not exist; most of a large arena's never will
};

}  // namespace sharedmem
