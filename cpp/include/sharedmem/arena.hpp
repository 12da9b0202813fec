#pragma once

/// \file
/// The main header of the C++ library: allocating memory from an arena, and sharing it with other processes.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <sharedmem/error.hpp>
#include <sharedmem/export.hpp>
#include <sharedmem/handle.hpp>
#include <sharedmem/segment.hpp>

namespace sharedmem {

class arena;
class mapping;
struct arena_identity;
struct geometry_plan;
struct slab;

/// One local reference to a block. A plain value, so that a language binding can hold it in place of a
/// pointer: its holder calls `arena::release` once. Empty when `home` is null.
/// Threads: a reference belongs to one thread at a time. Processes: a forked child owns a copy of every
/// reference of its parent and releases it itself.
struct block_ref {
  arena* home = nullptr;  ///< where the block lies; null: no reference
  slab* owner = nullptr;      ///< null: this process does not own the block's chunk
  std::uint32_t block = 0;    ///< index of the descriptor
  std::uint32_t epoch = 0;  ///< of this process in the arena; a child forked without handlers gets another
};

/// A block as returned by `allocate`, `acquire` and `find`.
struct allocation {
  block_ref ref;  ///< the caller has to release it; empty in the result of `find` if there is none
  std::byte* data = nullptr;  ///< aligned as requested, to 64 bytes at least
  std::uint64_t bytes = 0;  ///< usable size, at least the requested size
  bool zeroed = false;  ///< all of it is known to be zero, as fresh pages of the kernel are
  bool read_only = false;  ///< of `find`: the address was in the read-only mapping; `data` is not
  bool carried = false;  ///< of `find`: `arena::mark_carried` was called for it in this process
};

/// When the pages of a new block are allocated (madvise(2): MADV_COLLAPSE, MADV_POPULATE_WRITE).
enum class pages : std::uint8_t {
  as_needed,  ///< huge pages at once for fresh blocks of 2 MiB and more, up to half of the available memory
  now,  ///< every page before `allocate` returns
  lazy  ///< none; each at its first touch
};

/// The contents of an arena. Not a consistent snapshot, since other threads and processes go on meanwhile.
struct arena_statistics {
  std::uint64_t live_bytes = 0;  ///< of blocks that this process references
  std::uint64_t live_blocks = 0;  ///< those blocks
  std::uint64_t shared_bytes = 0;  ///< of blocks that were shared and are not freed yet, all processes
  std::uint64_t shared_blocks = 0;  ///< those blocks
  std::uint64_t cached_bytes = 0;  ///< free but resident, all processes
  std::uint64_t resident_bytes = 0;  ///< of all segments, in memory
  std::uint64_t arena_bytes = 0;  ///< of all segments, in addresses
  std::uint64_t cache_limit = 0;  ///< of `cached_bytes`
  std::uint64_t leases = 0;  ///< references in flight
  std::uint64_t bytes_in_flight = 0;  ///< of the blocks that these keep
  std::uint64_t oldest_in_flight_ns = 0;  ///< age of the oldest of them, nanoseconds; 0: none, or unknown
  std::uint32_t participants = 0;  ///< processes in the arena
  std::uint32_t segments = 0;  ///< kernel objects: the primary segment, its extensions, the census
};

/// One process slot that is in use.
struct participant_report {
  std::uint32_t slot = 0;  ///< index of the slot
  std::uint32_t pid = 0;  ///< in the pid namespace of the process
  /// `reserved`: for a child that its parent is about to fork; `dead`: not cleared yet.
  enum class state : std::uint8_t { active, reserved, dead } what = state::active;
  std::uint64_t chunks = 0;  ///< chunks owned
  std::uint64_t bytes = 0;  ///< their size
  std::uint64_t leases = 0;  ///< references in flight that it sent
  std::uint64_t bytes_in_flight = 0;  ///< as in `arena_statistics`
  std::uint64_t oldest_in_flight_ns = 0;  ///< as in `arena_statistics`
  bool self = false;  ///< it is the calling process
};

/// An arena as one participant sees it: the mapping, this process's slot, its chunks and counts.
/// Ownership: destroying it leaves the arena if nothing is held; otherwise the slot stays ACTIVE until others
///   notice that the process has died.
/// Threads: every function may be called at any time from any thread.
/// Processes: a forked child uses the arenas of home.hpp as its parent does. In an arena that the program itself
///   made by `create` or `attach`, a child has none of its parent's references, and joins as a new participant.
class SHAREDMEM_API arena {
 public:
  /// Makes a new arena. `bytes`: requested size of its primary segment, 0 for the default (4 x RAM, between
  /// 64 GiB and 16 TiB, at most 1/16 of a finite shmall, at most half of the remaining address space). Smaller
  /// sizes are tried next, down to 32 MiB, then memfd.
  /// \throws sharedmem::error  listing each attempt with its errno.
  static std::unique_ptr<arena> create(std::uint64_t bytes = 0);
  /// Joins the arena at `where`.
  /// \throws stale_handle      it no longer exists, is another arena, or is on another host.
  /// \throws sharedmem::error  EACCES (it belongs to another user), ENOMEM.
  /// \throws corrupted         its header is invalid, or of another version.
  static std::unique_ptr<arena> attach(const locator& where);

  ~arena();
  arena(const arena&) = delete;
  arena& operator=(const arena&) = delete;

  const locator& where() const noexcept;  ///< by which others attach it

  /// Allocates `bytes` (0 is legal), aligned to `alignment` bytes: a power of two up to 2 MiB.
  /// \throws std::invalid_argument  the alignment is something else.
  /// \throws no_memory              with the bytes requested and available, the limit and its setting.
  allocation allocate(std::uint64_t bytes, std::uint64_t alignment = 64, pages how = pages::as_needed);
  /// The same from this thread's cache, without a system call. False: the cache has no such block.
  bool allocate_cached(std::uint64_t bytes, std::uint64_t alignment, allocation& made) noexcept;
  /// Whether the effective user of this process is still the one that made or attached the arena; no other user
  /// can attach it.
  bool is_of_this_user() const noexcept;

  /// Gives a local reference back; the last one of the last process frees the block. Empties `ref`.
  void release(block_ref& ref) noexcept;

  /// The claim that a handle needs: publishes the block on its first share. With `lease`, a reference
  /// in flight is acquired too, which keeps the block until `acquire` consumes it.
  /// \pre    the caller holds `ref`.
  /// \throws no_memory     no descriptor or lease is free, or messages keep as much as `limit_in_flight` allows; the
  ///                       text has the numbers.
  /// \throws stale_handle  `ref` was copied into this process by a fork without handlers.
  claim share(const block_ref& ref, bool lease);

  /// From now on `share` refuses leases if messages of this process would keep more than that many bytes, each
  /// block counted once. By default there is no limit.
  void limit_in_flight(std::uint64_t bytes) noexcept;

  /// Acquires a local reference to the block of `c`; consumes its lease if it has one.
  /// \return  with `data` and `bytes` set; `zeroed` is unspecified.
  /// \throws stale_handle      with the reason.
  /// \throws corrupted         the block's descriptor is invalid.
  /// \throws no_memory         all process slots are in use.
  /// \throws sharedmem::error  ENOMEM, EMFILE: the segment of the block cannot be attached.
  allocation acquire(const claim& c);

  /// Gives back a lease that was acquired for a message that will not be sent. No effect if it was loaded.
  void give_back(const claim& c) noexcept;

  /// This process has read a message with that claim's lease, and is responsible for it from now on: after its
  /// death the message is kept, like those of other dead senders. False: the lease is not in use.
  bool note_read(const claim& c) noexcept;
  /// The same for a message that it is about to write. `again`: it has written it before, and that copy may
  /// still exist. True: no other process can have a copy.
  bool note_written(const claim& c, bool again) noexcept;
  /// Whether the lease is in use and this process is responsible for it. False without a slot of its own.
  bool stands_for(const claim& c) noexcept;
  /// Whether the lease still keeps its block, whichever process is responsible: it was neither loaded nor given up.
  bool is_in_flight(const claim& c) noexcept;
  /// Gives back the lease of a message whose bytes are lost, if this process is responsible for it and there
  /// never was another copy.
  /// \return  whether it did.
  bool give_back_lost(const claim& c) noexcept;

  /// Makes a lease in use belong to the block of `keeper`, which this process holds, instead of to a process. It then
  /// stays in use, whatever process dies, until `take_from_keeper`, `give_back_kept`, `acquire`, or the end of that block.
  /// \return  false: the lease is not in use.
  bool keep_in(const claim& c, const claim& keeper) noexcept;
  /// From now on this process is responsible for a kept lease. False: it is not kept.
  bool take_from_keeper(const claim& c) noexcept;
  /// Gives back a lease that is kept. No effect, and false, if it is not.
  bool give_back_kept(const claim& c) noexcept;
  /// Gives back leases that were kept by blocks freed since. `collect` and allocations short of memory do so, too.
  /// \return  how many leases.
  std::uint64_t drop_unkept() noexcept;

  /// Two numbers, n and n + 1, for the ends of a new connection: other processes record by them how they read it.
  std::uint64_t new_ends() noexcept;
  /// From now on `is_read_elsewhere(end)`: bytes that arrive at this end may be read by code that does not report it.
  /// This cannot be undone; numbers that are 4096 apart share one mark.
  void read_elsewhere(std::uint64_t end) noexcept;
  bool is_read_elsewhere(std::uint64_t end) const noexcept;

  /// The block that contains address `p`, if this process holds a reference to it: its start, size and
  /// index; otherwise `ref.home` is null. Acquires no reference. `p` may be an address in the read-only
  /// mapping; then `read_only` is set.
  allocation find(const void* p) const noexcept;

  /// Notes that this process got the block as a private copy, as if its bytes had come through a pipe: code that
  /// sends the data on from here copies it, and does not share the block. `find` reports this for any address in
  /// the block until this process drops its last reference. The note is in private memory: other
  /// processes do not have it; a forked child has it for the references that it inherits.
  /// \pre  the caller holds `ref`, which `acquire` returned; no other process has a reference.
  void mark_carried(const block_ref& ref) noexcept;

  /// Whether another process references the block, or a lease keeps it. Dead processes count until they are noticed.
  /// \pre  the caller holds `ref`.
  bool held_elsewhere(const block_ref& ref) const noexcept;

  /// The address of the same byte in a read-only mapping: a store there is a SIGSEGV, and mprotect(2) is
  /// refused with EACCES. Each segment gets one such mapping per process, when it is first needed; it stays as
  /// long as the arena is attached, and a forked child has it, too.
  /// \param p  an address in the data space, through either mapping.
  /// \return  null if `p` lies in neither.
  /// \throws sharedmem::error  ENOMEM: no address space; EACCES: this process has another user now; for a memfd
  ///         also EBADF, EMFILE, ENFILE, ENOENT.
  const std::byte* read_only(const void* p);
  /// The address of the same byte in the writable mapping; null if `p` lies in neither. Wait-free.
  std::byte* writable(const void* p) const noexcept;

  /// Whether `p` lies in the data space of this arena, through either mapping. Wait-free.
  bool contains(const void* p) const noexcept;

  /// Another local reference to a block that is held. Throws what `share` throws.
  block_ref duplicate(const block_ref& ref);

  // The following functions, if not noexcept, throw no_memory in a process that was forked without handlers and
  // finds all process slots in use.

  /// Gives this process's cached memory back to the system (MADV_REMOVE).
  /// \return  bytes by which the arena's resident memory shrank meanwhile.
  std::uint64_t trim();

  /// Frees what dead processes held.
  /// \param leases  also their messages that were not loaded: loading one afterwards throws stale_handle.
  ///   Otherwise these are kept until an allocation would be refused.
  /// \return  bytes of blocks that were freed: an estimate, since others go on meanwhile.
  std::uint64_t collect(bool leases);

  /// Gives back leases of living senders that are `older_than_ns` nanoseconds old, by the clock of this
  /// process: their messages become stale.
  /// \return  how many.
  std::uint64_t revoke(std::uint64_t older_than_ns);

  /// Bytes of free memory that the arena keeps warm, for all processes together.
  std::uint64_t cache_limit() const noexcept;
  /// Sets it for all processes of the arena: for each from its next release on, for this one at once.
  void set_cache_limit(std::uint64_t bytes) noexcept;

  /// Each count is correct by itself, but they are not a consistent snapshot, since others go on meanwhile.
  /// \throws sharedmem::error  ENOMEM, EMFILE: a segment of the arena cannot be attached.
  arena_statistics statistics();
  std::vector<participant_report> participants();  ///< the processes that are in it now

  /// Checks header and tables of this arena.
  /// \throws corrupted  naming the first invalid entry.
  void check() const;

  /// Whether the arena can be left: this process holds no block of it, and no lease of any process is in use.
  bool idle() const noexcept;
  struct SHAREDMEM_HIDDEN state;
  /// Its parts, for the library's own sources.
  SHAREDMEM_HIDDEN state& parts() const noexcept { return *s_; }

 private:
  friend struct arena_hooks;  // the library's own fork handlers and orderly end
  friend class host_maker;
  explicit arena(std::unique_ptr<state> s) noexcept;
  /// Makes an arena in zeroed memory, and joins it.
  static std::unique_ptr<arena> begin(mapping&& memory, const geometry_plan& plan, arena_identity of,
                                      std::uint64_t cache_limit);
  std::unique_ptr<state> s_;
};

}  // namespace sharedmem
