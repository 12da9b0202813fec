#pragma once

/// \file
/// What users of the C++ library call: memory of an arena, for this process.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <sharedmem/error.hpp>
#include <sharedmem/export.hpp>
#include <sharedmem/handle.hpp>
#include <sharedmem/protocol.hpp>
#include <sharedmem/segment.hpp>

namespace sharedmem {

class arena;
struct slab;

/// One local reference to a block. A plain value, so that a language binding can hold it in place of a
/// pointer: whoever holds it calls `arena::release` once. Empty when `home` is null.
/// Threads: a reference belongs to one thread at a time. Processes: a forked child owns a copy of every
/// reference of its parent and releases it itself.
struct block_ref {
  arena* home = nullptr;
  slab* owner = nullptr;      // null: this process does not own the block's chunk
  std::uint32_t block = 0;    // index of the descriptor
  std::uint32_t epoch = 0;  // of this process in the arena; a child forked without handlers gets a new one
};

/// A block as it was handed out.
struct allocation {
  block_ref ref;
  std::byte* data = nullptr;  // aligned as asked for, 64 bytes at least
  std::uint64_t bytes = 0;  // usable, at least what was asked for
  bool zeroed = false;  // all of it reads as zero, as the kernel gave it
};

/// A claim on a block in words: what a handle carries of it.
struct claim {
  std::uint32_t block = 0;
  std::uint64_t generation = 0;
  std::uint32_t lease = no_lease;
  std::uint64_t nonce = 0;
};

enum class pages : std::uint8_t {
  as_needed,  // huge pages at once for fresh blocks of 2 MiB and more, up to half of what is available
  now,  // every page present before return
  lazy  // none; first touch by whoever touches
};

struct arena_statistics {
  std::uint64_t live_bytes = 0, live_blocks = 0;  // referenced by this process
  std::uint64_t shared_bytes = 0, shared_blocks = 0;  // shared and not freed yet, all processes
  std::uint64_t cached_bytes = 0;  // free but resident, all processes
  std::uint64_t resident_bytes = 0, arena_bytes = 0;
  std::uint64_t cache_limit = 0;
  std::uint64_t leases = 0, bytes_in_flight = 0;
  std::uint32_t participants = 0, segments = 0;
};

struct participant_report {
  std::uint32_t slot = 0, pid = 0;
  enum class state : std::uint8_t { active, reserved, dead } what = state::active;
  std::uint64_t chunks = 0, bytes = 0;  // chunks owned and their size
  bool self = false;
};

/// An arena as one participant sees it: the mapping, this process's slot, its chunks and counts.
/// Ownership: destroying it leaves the arena if nothing is held, else the slot stays ACTIVE until others
///   find the process dead.
/// Threads: every function may be called at any time from any thread.
/// Processes: `fork` needs `prepare_fork`/`after_fork_*` around it (home.hpp registers them).
class SHAREDMEM_API arena {
 public:
  /// A new arena. `bytes`: wished size of its primary segment, 0 for the default (4 x RAM within 64 GiB and
  /// 16 TiB, at most 1/16 of a finite shmall, at most half of the address space left). Smaller ones are tried
  /// down to 32 MiB, then memfd.
  /// \throws sharedmem::error  naming each attempt with its errno.
  static std::unique_ptr<arena> create(std::uint64_t bytes = 0);
  /// Joins the arena that `where` names.
  /// \throws stale_handle      it has gone, or is another's, or another host's.
  /// \throws sharedmem::error  EACCES (another user's), ENOMEM.
  /// \throws corrupted         its header makes no sense, or is of another version.
  static std::unique_ptr<arena> attach(const locator& where);

  ~arena();
  arena(const arena&) = delete;
  arena& operator=(const arena&) = delete;

  const locator& where() const noexcept;

  /// `bytes` of memory (0 is legal), aligned to `alignment` bytes: a power of two up to 2 MiB.
  /// \throws std::invalid_argument  the alignment is something else.
  /// \throws no_memory              with bytes asked for, bytes available, the limit met and its knob.
  allocation allocate(std::uint64_t bytes, std::uint64_t alignment = 64, pages how = pages::as_needed);

  /// Gives a local reference back; the last one of the last process frees the block. Empties `ref`.
  void release(block_ref& ref) noexcept;

  /// The claim that a handle needs: publishes the block on its first share. With `lease`, a reference
  /// in flight is taken too, that keeps the block until `acquire` consumes it. pre: the caller holds a
  /// reference to the block.
  /// \throws no_memory  no descriptor or lease is free; the text has numbers.
  claim share(const block_ref& ref, bool lease);

  /// A local reference to the block that `c` names; consumes its lease if it has one.
  /// On return `data` and `bytes` are set.
  /// \throws stale_handle  with the reason.
  allocation acquire(const claim& c);

  /// Gives back a lease that was taken for a message that will not be sent. No effect if it was loaded.
  void give_back(const claim& c) noexcept;

  /// The block that holds address `p`, if this process holds a reference to it: its start, size and
  /// index. `ref.home` is null else. Takes no reference.
  allocation find(const void* p) const noexcept;

  /// Whether `p` lies in the data space of this arena. Wait-free.
  bool contains(const void* p) const noexcept;

  /// Another local reference to a block that is held.
  block_ref duplicate(const block_ref& ref);

  std::uint64_t trim();  ///< gives cached memory back; bytes
  std::uint64_t collect(
      bool
          leases);  ///< repairs after the dead; with `leases` ends expired grace now; bytes freed (an estimate: blocks' sizes)
  std::uint64_t revoke(std::uint64_t older_than_ns);  ///< gives back leases of living senders; count
  std::uint64_t cache_limit() const noexcept;
  void set_cache_limit(std::uint64_t bytes) noexcept;
  arena_statistics statistics();
  std::vector<participant_report> participants();
  /// Checks header and tables of this arena.
  /// \throws corrupted  naming the first thing that does not make sense.
  void check() const;

  bool idle() const noexcept;  ///< this process holds no block and has no lease out
  bool must_linger();  ///< messages are out that would be lost if this process ended now
  bool others_present();  ///< another participant is ACTIVE
  bool leases_out();
  /// The descriptors that this process has for the arena's segments, ascending; empty for System V memory.
  std::vector<int> descriptors() const;

  void prepare_fork() noexcept;
  void after_fork_in_parent() noexcept;
  void after_fork_in_child() noexcept;
  /// In a child forked to linger: takes over the parent's slot (ACTIVE(parent) -> ACTIVE(this process)).
  void take_over_slot() noexcept;

  struct state;

 private:
  explicit arena(std::unique_ptr<state> s) noexcept;
  std::unique_ptr<state> s_;
};

}  // namespace sharedmem
