#pragma once

/// The references that this process holds: for each shared block that it references a count, the block's generation,
/// and this process's bit in it.
///
/// It adds, confirms and drops claims by the protocol, frees the blocks that have none left, and notifies
/// their owners. It does not know who participates in the arena, does not look for dead processes and knows no
/// limits: its callers decide what to do when there is no lease.
///
/// Locks: sixteen stripes, selected by block; functions say so if the caller holds them. The lock of the heap is
/// acquired after them. No code outside the library is called while one is held.
/// Processes: fork takes all stripes, and the child starts with what its parent held (members/fork.cpp). A child
/// made without fork handlers holds nothing (`renew_locks`, `forget`).
#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <new>
#include <utility>

#include <sharedmem/handle.hpp>

#include "heap/heap.hpp"
#include "heap/records.hpp"
#include "shared/own_slot.hpp"
#include "shared/protocol.hpp"
#include "shared/tables.hpp"

namespace sharedmem {

class references {
 public:
  static constexpr std::uint32_t stripe_count = 16;
  using all_locks = std::array<std::unique_lock<std::mutex>, stripe_count>;

  /// A block, and where it lies in this process.
  struct located {
    slab* owner = nullptr;      // as below
    std::uint32_t block = 0;
    std::byte* data = nullptr;  // null: there is no such block
    std::uint64_t bytes = 0;
    bool read_only = false;     // of `find`: the address was one in the read-only mapping
    bool carried = false;       // of `find`: `mark_carried` was called for it
  };

  references(tables& words, records& held, heap& pool, const own_slot& self) noexcept
      : rules(words), words(words), held(held), pool(pool), identity(self) {}
  references(const references&) = delete;
  references& operator=(const references&) = delete;

  /// Called once, when `words` is open and before any other function.
  /// \throws std::bad_alloc
  void open() { held.reserve(std::uint64_t{words.head().chunk_capacity} * descriptors_per_chunk); }

  /// The arena's words, changed as the protocol allows. Operations on one block are for the holder of its stripe.
  protocol<native_atomics, tables> rules;

  // ---- locks

  std::mutex& stripe(std::uint32_t b) const noexcept { return stripes[b % stripe_count]; }
  all_locks all_stripes();
  /// All of them, by index. For fork.
  void lock() noexcept {
    for (std::mutex& m : stripes) m.lock();
  }
  void unlock() noexcept {
    for (std::mutex& m : stripes) m.unlock();
  }
  /// In a child made without fork handlers: locks may be held by threads that do not exist there.
  void renew_locks() noexcept {
    for (std::mutex& m : stripes) new (&m) std::mutex;
  }

  // ---- references of this process. `owner` is the private state of the block's chunk if that belongs to this process;
  // otherwise, or once the block was shared, it is nullptr.

  /// Changes in a child made without fork handlers: references of another epoch were only copied into this process.
  std::uint32_t epoch() const noexcept { return epoch_; }
  /// The generation of block b, which the caller references. Publishes b if it was never shared. stripe(b) held.
  /// \throws corrupted       it is not counted here.
  /// \throws std::bad_alloc  no private memory for its count.
  std::uint64_t publish(std::uint32_t b, slab* owner);
  /// Acquires a lease on the block of `c`, which has `bytes` bytes and is held; sets lease and nonce in `c`. False: the
  /// table is full. stripe(c.block) held.
  bool send(claim& c, std::uint64_t bytes);
  /// Acquires a reference to the block of `c`; consumes its lease if it has one. No lock.
  /// \pre    this process is not in an overflow slot: its bit is shared there, and a claim could not be removed again.
  /// \throws what arena::acquire throws, except no_memory.
  located acquire(const claim& c);
  /// One more reference to a block that is shared and held. No lock.
  void acquire_again(std::uint32_t b);
  /// Notes that this process got the block, which is shared and held, as a private copy. No lock.
  void mark_carried(std::uint32_t b) noexcept;
  /// Drops one. No lock.
  void release(std::uint32_t b, slab* owner) noexcept;
  /// Whether another process claims block b, which is held here. No lock.
  bool held_elsewhere(std::uint32_t b) const noexcept;
  /// The block that contains address `p`, if this process holds a reference to it. No lock.
  located find(const void* p) const noexcept;
  /// Counts the first reference to a block that was published in generation g. stripe(b) held, and `held` has a
  /// record of it.
  void begin(std::uint32_t b, std::uint64_t g) noexcept { begin(held.ready(b), g); }
  /// Calls f(block, record) for every block that is shared and held here, after `soon(block)` for a few that come
  /// next. All stripes held.
  template <class F, class Soon>
  void each_held(F&& f, Soon&& soon) const {
    held.each_held(std::forward<F>(f), std::forward<Soon>(soon));
  }
  template <class F>
  void each_held(F&& f) const {
    held.each_held(std::forward<F>(f));
  }
  /// Whether a shared block is held; cheaper than `none_held`. No lock.
  bool holds_any() const noexcept { return count_.load(std::memory_order_relaxed) != 0; }
  /// Whether no shared block is held, and the thread that released the last one has finished doing so. No lock.
  bool none_held() noexcept;
  /// In a child made without fork handlers: forgets what was copied into it.
  void forget() noexcept;

  // ---- leases: see the functions of these names in arena.hpp. No lock.

  void give_back(const claim& c) noexcept;
  bool note_read(const claim& c) noexcept;
  bool note_written(const claim& c, bool again) noexcept;
  bool stands_for(const claim& c) noexcept;
  bool is_in_flight(const claim& c) noexcept;
  bool give_back_lost(const claim& c) noexcept;
  bool keep_in(const claim& c, const claim& keeper) noexcept;
  bool take_from_keeper(const claim& c) noexcept;
  bool give_back_kept(const claim& c) noexcept;
  /// Whether the block of a kept lease, as given by `kept_by`, is certainly freed.
  bool keeper_is_gone(std::uint64_t keeper) const noexcept;

  // ---- freeing

  /// Frees b if it has no claim; true if this call did. stripe(b) held.
  bool free_if_unclaimed(std::uint32_t b);
  bool free_if_unclaimed(std::uint32_t b, std::uint32_t signer);

 private:
  std::uint32_t slot() const noexcept { return identity.index(); }
  void begin(record& r, std::uint64_t g) noexcept {
    r.generation = g;
    r.count = 1;
    r.carried = false;
    count_.fetch_add(1, std::memory_order_relaxed);
  }
  bool may_keep(std::uint32_t b) const noexcept;
  void empty_pages(std::uint32_t b) noexcept;
  void after_free(std::uint32_t b, std::uint64_t place);
  void drop_published(std::uint32_t b) noexcept;

  tables& words;
  records& held;
  heap& pool;
  const own_slot& identity;
  mutable std::array<std::mutex, stripe_count> stripes;
  std::atomic<std::uint64_t> count_{0};  // records with a count: blocks of the protocol held here
  std::uint32_t epoch_ = 0;
};

}  // namespace sharedmem
