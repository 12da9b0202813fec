#pragma once

/// The owner's allocator of one arena in this process: blocks out of the chunks that this process owns.
///
/// It works on private memory, under one lock, and writes of the shared tables only what an owner alone may
/// write: the chunk table's entries of its own chunks, and hints. It never looks for dead processes, checks
/// no limit of memory and makes no segment: its callers decide what to try next when it has no room.
///
/// Locks: the object is the lock itself (`std::lock_guard lock(heap)`); functions say so where they need
/// none. It is the last lock that a thread takes; nothing is called out of the library while it is held.
/// Processes: a forked child starts with an empty heap (`forget_chunks`), as its parent owns the chunks.
#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <new>
#include <set>
#include <utility>
#include <vector>

#include "heap/records.hpp"
#include "heap/size_class.hpp"
#include "heap/slab.hpp"
#include "heap/thread_cache.hpp"
#include "heap/zero_table.hpp"
#include "shared/own_slot.hpp"
#include "shared/tables.hpp"

namespace sharedmem {

class heap {
 public:
  /// A block that was taken.
  struct taken {
    slab* owner = nullptr;
    std::uint32_t index = 0;  // of the block in `owner`
    bool zeroed = false;      // its bytes read as zero
  };

  heap(tables& words, records& held) noexcept : words(words), held(held) {}
  heap(const heap&) = delete;
  heap& operator=(const heap&) = delete;
  ~heap();

  /// Called once, when `words` is open and before any other function.
  /// \throws std::bad_alloc
  void open(const own_slot& self);

  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }
  /// In a child made without fork handlers: the lock may be held by a thread that does not exist there.
  void renew_lock() noexcept { new (&mutex_) std::mutex; }

  // ---- blocks (lock held)

  /// Whether a block of this size class is available at once.
  bool has_room(std::uint32_t size_class) const noexcept { return with_room[size_class] != nullptr; }
  /// Takes a block of this size class. \pre has_room(size_class).
  taken take_small(std::uint32_t size_class) noexcept { return pop(*with_room[size_class]); }
  /// Takes a whole run as one block. \throws no_memory  no descriptor is left; the run is cached then.
  taken take_run(slab* run);
  /// Cuts a run of one chunk into blocks of a class. Throws what `take_run` throws; the run is cached then.
  void cut(slab* run, std::uint32_t size_class);
  /// Takes back a block that was never shared, or that no process claims any more.
  void drop_unshared(slab& s, std::uint32_t index) noexcept;
  /// Lists block b of chunk c again if that chunk is ours and the block is free.
  void list_if_free(std::uint32_t b, std::uint32_t chunk) noexcept;

  // ---- runs and chunks (lock held)

  /// A cached run of exactly `chunks`; nullptr: there is none. \throws std::bad_alloc
  slab* uncache(std::uint32_t chunks);
  /// Claims chunks without an owner, of which the first can have descriptors for that many blocks; nullptr: no such
  /// room in the attached segments. \throws std::bad_alloc
  slab* claim_fresh(std::uint32_t chunks, std::uint32_t blocks = 1);
  /// Whether a chunk has descriptors for that many blocks, or its segment has as many left.
  bool can_describe(std::uint32_t chunk, std::uint32_t blocks) const noexcept;
  /// Keeps a run for later.
  void cache_run(slab* run) noexcept { cache_run(run, {}); }
  /// Takes over chunks whose owner has died, but no more than are requested, since their memory is warm and the
  /// successors of the dead process will need the same: those cut into blocks of a class, or a run of so many chunks.
  /// If these have no room, all: runs grow together only in the hands of one process, and without that each
  /// generation would leave smaller pieces and take fresh memory. True if something changed.
  bool adopt_orphans(std::uint32_t chunks, std::uint32_t size_class);
  /// Takes over all chunks whose owner has died. True if there were any.
  bool adopt_all_orphans();
  /// Bytes of chunks whose owner has died, and in which no block is in use. An estimate: others may adopt them
  /// meanwhile.
  std::uint64_t orphaned_bytes() const noexcept;
  /// Gives such chunks back to the system until they and all that is cached are at most `limit` bytes, or about that
  /// if others do the same. Does nothing if no chunk has lost its owner since the last call.
  void limit_orphans(std::uint64_t limit) noexcept;
  /// Lists what other processes freed since the last call. True if a hint said there was something.
  bool sweep_returns() noexcept;
  /// Looks at every block of ours for what other processes freed.
  void sweep_all() noexcept;
  /// As `sweep_all`, if a process was repaired since the last call: it may have died between
  /// freeing a block of ours and leaving the hint that says so.
  bool sweep_after_repairs() noexcept;
  /// Gives cached runs back to the system until at most `limit` bytes are cached in the arena, by all
  /// processes. Returns bytes given.
  std::uint64_t limit_cache(std::uint64_t limit) noexcept;
  /// Gives back cached runs, shortest first, of about `bytes` in all. To be called when a request of that size
  /// was longer than each of them: it takes fresh memory, and the arena does not grow if these go instead.
  void give_back_fragments(std::uint64_t bytes) noexcept;
  /// Makes cached runs of slabs without a block in use, until a run of so many chunks is cached. Nothing is given back
  /// beyond the limit. True if there is such a run.
  bool dissolve_spares(std::uint32_t chunks) noexcept;
  /// The same, if what all processes cache and our slabs without a block in use are more than `limit` bytes. To be
  /// called before fresh memory is taken: each class keeps a slab, so that a process with arrays of many sizes would
  /// keep far more than the limit. What is then cached beyond the limit and does not help is given back.
  bool reuse_spares(std::uint32_t chunks, std::uint64_t limit) noexcept;
  /// Makes cached runs of all slabs without a block in use, and gives back everything that this process caches.
  void trim() noexcept;
  /// Bytes that this process caches, in whole runs.
  std::uint64_t cached() const noexcept { return cached_bytes; }
  /// Bytes that all processes together cache, by what each last noted. No lock.
  std::uint64_t cached_everywhere() const noexcept;

  // ---- looking (lock held unless said)

  /// Calls f(slab&, index) for every block in use here that was never shared.
  template <class F>
  void each_unshared(F&& f) const {
    for (slab* s = all_owned; s != nullptr; s = s->next_owned)
      for (std::uint32_t i = 0; i < s->carved; ++i)
        if (s->states[i].load(std::memory_order_relaxed) == use::in_use) f(*s, i);
  }
  /// The slab of a chunk that this process owns; nullptr: it owns no such chunk. May be called without the lock for a
  /// chunk of which the caller holds a block, since that chunk stays.
  slab* owned_at(std::uint32_t chunk) const noexcept { return chunk < owned.size() ? owned[chunk] : nullptr; }

  // ---- caches of threads

  /// A block of a cached class from this thread's cache; no owner: it has none. No lock. (fast_path.hpp)
  taken take_cached(std::uint32_t size_class) noexcept;
  /// Puts a block into this thread's cache. False: it is not of a cached class, is shared, the cache is full,
  /// or there is none. No lock. (fast_path.hpp)
  bool give_cached(slab& owner, std::uint32_t index) noexcept;
  /// Fills this thread's cache up to half, with blocks that need no further memory. Lock held.
  void fill_cache(std::uint32_t size_class) noexcept;
  /// Gives half of what this thread's cache has of a class back to the slabs. Lock held.
  void make_cache_space(std::uint32_t size_class) noexcept;
  /// After it has returned, no thread uses its cache until `resume_threads` is called: calls take the slow path and
  /// wait for the lock. Lock held.
  void stop_threads() noexcept;
  void resume_threads() noexcept;
  /// Whether `stop_threads` was called, and `resume_threads` not yet. No lock.
  bool threads_stopped() const noexcept { return stopped.load(std::memory_order_acquire); }

  /// In a forked child: nothing here is ours. Lock held, or no other thread.
  void forget_chunks() noexcept;
  /// A thread that ends gives its cache back. No lock.
  void leave(thread_cache* cache) noexcept;

 private:
  std::uint32_t slot() const noexcept { return self_->index(); }

  // pool.cpp
  taken pop(slab& s) noexcept;
  void put(slab& s, std::uint32_t index) noexcept;
  void dissolve_if_free(slab& s) noexcept;
  slab* dissolve(slab& s) noexcept;
  void sweep(slab& s) noexcept;
  void link(slab& s) noexcept;
  void unlink(slab& s) noexcept;

  // runs.cpp
  using run_set = std::set<std::pair<std::uint32_t, std::uint32_t>>;  // length, head chunk
  using run_node = run_set::node_type;
  void cache_run(slab* run, run_node node) noexcept;
  bool list_cached(slab*& run, run_node node) noexcept;
  bool keep_run(slab* run, run_node node) noexcept;
  bool has_cached(std::uint32_t chunks) const noexcept {
    return !cached_runs.empty() && cached_runs.rbegin()->first >= chunks;
  }
  bool empty_run(const slab& run) noexcept;
  run_node remove_cached(slab* run) noexcept;
  void note_cached() noexcept;
  bool is_cached_run(const slab* s) const noexcept;

  // orphans.cpp
  bool orphans_to_see() const noexcept;
  template <class Use>
  bool each_orphan(Use&& use) const;
  template <class Wanted, class Enough>
  bool adopt_where(Wanted&& wanted, Enough&& enough);
  bool take_orphan(std::uint32_t chunk, std::uint64_t owner) noexcept;
  void leave_orphan(std::uint32_t chunk) noexcept;
  bool is_free_orphan(std::uint32_t chunk, cut_word cut) const noexcept;
  void adopt(std::uint32_t chunk);
  slab* adopt_as_run(std::uint32_t chunk, std::uint32_t chunks);

  // chunks.cpp
  void ensure_descriptors(std::uint32_t chunk, std::uint32_t count);
  slab* new_run(std::uint32_t chunk, std::uint32_t chunks);
  slab* split(slab* run, std::uint32_t chunks);  // returns the tail
  slab* merge(slab* left, slab* right) noexcept;
  void unclaim(slab* run) noexcept;
  void own(slab* s) noexcept;
  void disown(slab* s) noexcept;

  // caches.cpp
  thread_cache* ready_cache() noexcept;
  void flush(magazine& m, std::uint32_t keep) noexcept;
  void flush_idle_caches() noexcept;
  void drop_caches() noexcept;

  tables& words;
  records& held;  // has room for every block of ours, so that a fork needs no memory
  const own_slot* self_ = nullptr;
  std::mutex mutex_;

  zero_table<slab*> owned;  // by chunk; heads and last chunks of runs
  slab* all_owned = nullptr;
  std::array<slab*, class_count> with_room{};
  std::array<std::uint32_t, class_count> slabs_of_class{};
  run_set cached_runs;
  std::uint64_t cached_bytes = 0;
  std::uint64_t repairs_seen = 0;
  std::uint64_t orphans_seen = 0;  // header::orphans, as it was before our last look at all chunks
  std::uint64_t orphans_limited = 0;  // the same, for `limit_orphans`
  std::vector<thread_cache*> caches;
  bool caches_usable = false;
  std::atomic<bool> stopped{false};
};

}  // namespace sharedmem
