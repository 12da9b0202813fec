#pragma once

/// The arena's words at their addresses in this process: the `Tables` of protocol.hpp over mapped segments.
#include <array>
#include <atomic>
#include <cstdint>
#include <limits>
#include <mutex>
#include <new>

#include <sharedmem/futex.hpp>

#include "segment/mapping.hpp"
#include "shared/layout.hpp"
#include "shared/protocol.hpp"

namespace sharedmem {

/// A word of the tables in the type that the functions of futex.hpp take.
inline const std::uint32_t* futex_word(const word32& word) noexcept {
  static_assert(sizeof word == sizeof(std::uint32_t) && word32::is_always_lock_free);
  return reinterpret_cast<const std::uint32_t*>(&word);
}

/// One segment of the arena, attached. Constant once its index is below `tables::extents()`.
struct extent {
  mapping memory;
  std::byte* data = nullptr;
  std::byte* descriptors = nullptr;
  std::uint32_t first_chunk = 0, chunks = 0;
  std::uint32_t first_block = 0, blocks = 0;
  /// The data again, through a read-only mapping; null until it is needed.
  std::atomic<std::byte*> read_only_data{nullptr};
  mapping read_only_memory;

  /// Its segment was removed with the last process that had it attached, before this one had: no process holds anything
  /// in it, and it cannot be read. Its numbers stay in use.
  bool lost() const noexcept { return data == nullptr; }
  bool has(const void* p) const noexcept {
    return !lost() && static_cast<std::uint64_t>(static_cast<const std::byte*>(p) - data) <
                          std::uint64_t{chunks} * chunk_bytes;
  }
  /// The same for an address in `read_only_data`.
  bool has_read_only(const void* p) const noexcept {
    const std::byte* seen = read_only_data.load(std::memory_order_acquire);
    return seen != nullptr && static_cast<std::uint64_t>(static_cast<const std::byte*>(p) - seen) <
                                  std::uint64_t{chunks} * chunk_bytes;
  }
  /// Whether a descriptor with this place and size is valid here: that of an aligned block within the data.
  bool has(std::uint64_t place, std::uint64_t bytes) const noexcept {
    const std::uint64_t room = std::uint64_t{chunks} * chunk_bytes;
    return place % 64 == 0 && place <= room && bytes <= room - place;
  }
};

class tables {
 public:
  using word = native_atomics::word;

  tables() = default;
  /// Takes the mapped primary segment, whose header is complete.
  void open(mapping&& primary);

  header& head() const noexcept { return *head_; }
  participant_entry& slot(std::uint32_t s) const noexcept { return participants_[s]; }
  chunk_entry& chunk(std::uint32_t c) const noexcept { return chunks_[c]; }
  std::uint32_t slots() const noexcept { return head_->slots; }
  /// The first overflow slot. Each slot below it is one process's.
  std::uint32_t overflow_slot() const noexcept { return head_->slots - overflow_slots; }
  bool is_overflow(std::uint32_t s) const noexcept { return s - overflow_slot() < overflow_slots; }
  /// Whether s is a slot that belongs to a single process.
  bool is_own(std::uint32_t s) const noexcept { return s < overflow_slot(); }

  // Required by protocol.hpp.
  word* block(std::uint32_t b) const noexcept {
    const extent* e = &extents_[0];
    if (b >= e->blocks) [[unlikely]]
      e = &extent_of_block(b);
    return reinterpret_cast<word*>(e->descriptors + std::uint64_t{b - e->first_block} * stride_);
  }
  word* lease(std::uint32_t i) const noexcept { return leases_[i].words; }
  word& lease_mark(std::uint32_t g) const noexcept { return head_->lease_marks[g * 8]; }
  word& slot_mark() const noexcept { return head_->slot_mark; }
  std::uint32_t lease_group_entries() const noexcept { return lease_entries_; }
  std::uint64_t lease_count() const noexcept { return std::uint64_t{lease_group_count} * lease_entries_; }
  // Required by name_table.hpp.
  word& name(std::uint32_t i) const noexcept { return names_[i].word; }
  word& name_hash(std::uint32_t i) const noexcept { return names_[i].hash; }
  word* name_fields_of(std::uint32_t i) const noexcept { return name_fields_[i].words; }
  word& names_mark() const noexcept { return head_->names_mark; }
  std::uint32_t name_count() const noexcept { return head_->names; }
  /// Wakes threads that wait for a name.
  void ring_names_bell() const noexcept {
    head_->names_bell.fetch_add(1, std::memory_order_release);
    (void)wake(futex_word(head_->names_bell), std::numeric_limits<int>::max());
  }
  /// Blocks of the attached extents.
  std::uint32_t block_count() const noexcept {
    const extent& last = extents_[extents() - 1];
    return last.first_block + last.blocks;
  }
  /// Whether b has a descriptor that can be read.
  bool has_block(std::uint32_t b) const noexcept {
    return b < block_count() && has_descriptor(b) && !extent_of_block(b).lost();
  }
  /// Whether b was ever part of a chunk, so that its descriptor has memory; true for each where a touch allocates that.
  /// \pre  b < block_count().
  bool has_descriptor([[maybe_unused]] std::uint32_t b) const noexcept {
    if constexpr (!os::memory_is_promised) return true;
    const extent& e = extent_of_block(b);
    const auto index = static_cast<std::size_t>(&e - extents_.data());
    return b - e.first_block < head_->descriptors_used[index].load(std::memory_order_acquire);
  }
  template <class F>
  void for_each_published(F&& f) const {
    const auto mark = static_cast<std::uint32_t>(head_->chunk_mark.load(std::memory_order_seq_cst));
    for (std::uint32_t c = 0; c < mark && c < chunk_count(); ++c) for_each_published_in(c, f);
  }
  template <class F>
  void for_each_published_in(std::uint32_t c, F&& f) const {
    const chunk_entry& e = chunk(c);
    const std::uint32_t count = e.published.load(std::memory_order_seq_cst);
    if (count == 0 || extent_of_chunk(c).lost()) return;
    const std::uint32_t first = e.first.load(std::memory_order_relaxed);
    for (std::uint32_t i = 0; i < count && first + i < block_count(); ++i) f(first + i);
  }

  std::uint32_t extents() const noexcept { return extent_count_.load(std::memory_order_acquire); }
  extent& at(std::uint32_t index) noexcept { return extents_[index]; }
  const extent& at(std::uint32_t index) const noexcept { return extents_[index]; }
  /// Commits memory to `count` descriptors of an attached segment, from its `first`-th on. False: there
  /// is none.
  [[nodiscard]] static bool commit_descriptors(extent& e, std::uint64_t first, std::uint64_t count,
                                               std::size_t stride) noexcept {
    return e.memory.commit(
        static_cast<std::size_t>(e.descriptors - e.memory.data()) + static_cast<std::size_t>(first) * stride,
        static_cast<std::size_t>(count) * stride);
  }
  std::uint32_t chunk_count() const noexcept {
    const extent& last = extents_[extents() - 1];
    return last.first_chunk + last.chunks;
  }
  extent& extent_of_block(std::uint32_t b) const noexcept;
  extent& extent_of_chunk(std::uint32_t c) const noexcept;
  std::byte* chunk_data(std::uint32_t c) const noexcept {
    const extent& e = extent_of_chunk(c);
    return e.data + std::uint64_t{c - e.first_chunk} * chunk_bytes;
  }
  /// Offset of a chunk in its extent's data space.
  std::uint64_t chunk_place(std::uint32_t c) const noexcept {
    return std::uint64_t{c - extent_of_chunk(c).first_chunk} * chunk_bytes;
  }
  /// The chunk in which a described block lies; chunk_count() if the descriptor is invalid.
  std::uint32_t chunk_of(std::uint32_t b, std::uint64_t place) const noexcept {
    const extent& e = extent_of_block(b);
    const std::uint64_t c = place / chunk_bytes;
    return c < e.chunks ? e.first_chunk + static_cast<std::uint32_t>(c) : chunk_count();
  }
  /// The chunk that contains `p`, or chunk_count(). Only addresses of the writable mapping count.
  std::uint32_t chunk_at(const void* p) const noexcept;

  /// The address of the same byte in the writable mapping, if `p` is one in a read-only mapping of the data; else
  /// null. Wait-free.
  std::byte* writable(const void* p) const noexcept {
    if (!some_read_only_.load(std::memory_order_acquire)) [[likely]]
      return nullptr;
    return find_writable(p);
  }
  /// The address of the same byte in the read-only mapping, which is made if it does not exist.
  /// \pre    `p` is in the data space, in the writable mapping.
  /// \throws sharedmem::error  what mapping::view_read_only throws.
  std::byte* read_only(const void* p);

  /// Attaches extension segments that were added to the arena since; those that no longer exist count as lost.
  /// \throws what mapping::attach throws, except stale_handle.
  void sync();
  /// The same; false if it threw.
  bool try_sync() noexcept;
  /// Makes an extension segment with room for a run of `chunks` and adds it to the arena; false if the tables have no
  /// room for another. \throws sharedmem::error what the kernel refused.
  bool extend(std::uint32_t chunks);

  /// Around fork: no other thread is in `sync` or `extend` meanwhile.
  void hold_growth() noexcept { growing_.lock(); }
  void let_grow() noexcept { growing_.unlock(); }
  /// In a child forked without handlers, where the thread that held the lock does not exist.
  void forget_lock() noexcept { new (&growing_) std::mutex; }

 private:
  std::byte* find_writable(const void* p) const noexcept;
  void add(mapping&& memory, std::uint32_t chunks, const geometry_plan& plan);

  header* head_ = nullptr;
  participant_entry* participants_ = nullptr;
  chunk_entry* chunks_ = nullptr;
  lease_words* leases_ = nullptr;
  name_entry* names_ = nullptr;
  name_fields* name_fields_ = nullptr;
  std::uint32_t stride_ = 64, lease_entries_ = 0;
  mutable std::array<extent, max_extents> extents_{};
  std::atomic<std::uint32_t> extent_count_{0};
  std::atomic<bool> some_read_only_{false};
  std::mutex growing_;
};

}  // namespace sharedmem
