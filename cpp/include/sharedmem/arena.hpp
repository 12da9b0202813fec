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
#include <sharedmem/segment.hpp>

namespace sharedmem {

class arena;
class mapping;
struct arena_identity;
struct geometry_plan;
struct slab;

/// One local reference to a block. A plain value, so that a language binding can hold it in place of a
/// pointer: whoever holds it calls `arena::release` once. Empty when `home` is null.
/// Threads: a reference belongs to one thread at a time. Processes: a forked child owns a copy of every
/// reference of its parent and releases it itself.
struct block_ref {
  arena* home = nullptr;  ///< where the block lies; null: no reference
  slab* owner = nullptr;      ///< null: this process does not own the block's chunk
  std::uint32_t block = 0;    ///< index of the descriptor
  std::uint32_t epoch = 0;  ///< of this process in the arena; a child forked without handlers gets another
};

/// A block as it was handed out.
struct allocation {
  block_ref ref;  ///< the caller's to release; empty in what `find` returns if there is none
  std::byte* data = nullptr;  ///< aligned as asked for, 64 bytes at least
  std::uint64_t bytes = 0;  ///< usable, at least what was asked for
  bool zeroed = false;  ///< all of it reads as zero, as the kernel gave it
  bool read_only = false;  ///< of `find`: the address was in the read-only mapping; `data` is not
  bool carried = false;  ///< of `find`: `arena::mark_carried` was called for it in this process
};

/// When the pages of a new block are had (madvise(2): MADV_COLLAPSE, MADV_POPULATE_WRITE).
enum class pages : std::uint8_t {
  as_needed,  ///< huge pages at once for fresh blocks of 2 MiB and more, up to half of what is available
  now,  ///< every page present before return
  lazy  ///< none; first touch by whoever touches
};

/// What an arena holds. Others go on working in it: the numbers need not be of one moment.
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
  bool self = false;  ///< it is the process that asks
};

/// An arena as one participant sees it: the mapping, this process's slot, its chunks and counts.
/// Ownership: destroying it leaves the arena if nothing is held, else the slot stays ACTIVE until others
///   find the process dead.
/// Threads: every function may be called at any time from any thread.
/// Processes: a forked child uses the arenas of home.hpp as its parent does. In one that its parent made itself, by
///   `create` or `attach`, it has none of its parent's references, and takes part in it anew.
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

  const locator& where() const noexcept;  ///< what others attach it by

  /// `bytes` of memory (0 is legal), aligned to `alignment` bytes: a power of two up to 2 MiB.
  /// \throws std::invalid_argument  the alignment is something else.
  /// \throws no_memory              with bytes asked for, bytes available, the limit met and its knob.
  allocation allocate(std::uint64_t bytes, std::uint64_t alignment = 64, pages how = pages::as_needed);
  /// The same from what this thread's cache has, without a system call. False: it has no such block.
  bool allocate_cached(std::uint64_t bytes, std::uint64_t alignment, allocation& made) noexcept;
  /// Whether the effective user of this process is still the one who made or attached the arena: nobody else
  /// can attach it.
  bool is_of_this_user() const noexcept;

  /// Gives a local reference back; the last one of the last process frees the block. Empties `ref`.
  void release(block_ref& ref) noexcept;

  /// The claim that a handle needs: publishes the block on its first share. With `lease`, a reference
  /// in flight is taken too, that keeps the block until `acquire` consumes it.
  /// \pre    the caller holds `ref`.
  /// \throws no_memory     no descriptor or lease is free, or messages keep as much as `limit_in_flight` allows; the
  ///                       text has numbers.
  /// \throws stale_handle  `ref` was copied into this process by a fork without handlers.
  claim share(const block_ref& ref, bool lease);

  /// From now on `share` refuses leases while messages of this process keep that many bytes, each block counted
  /// once. Without it nothing is refused.
  void limit_in_flight(std::uint64_t bytes) noexcept;

  /// A local reference to the block that `c` names; consumes its lease if it has one.
  /// \return  with `data` and `bytes` set; `zeroed` tells nothing.
  /// \throws stale_handle      with the reason.
  /// \throws corrupted         the block's descriptor makes no sense.
  /// \throws no_memory         all process slots are taken.
  /// \throws sharedmem::error  ENOMEM, EMFILE: the segment that the block lies in cannot be attached.
  allocation acquire(const claim& c);

  /// Gives back a lease that was taken for a message that will not be sent. No effect if it was loaded.
  void give_back(const claim& c) noexcept;

  /// This process has read a message with that claim's lease, and stands for it from now on: after its death the
  /// message is kept as any of a dead sender. False: the lease is not out.
  bool note_read(const claim& c) noexcept;
  /// The same for a message that it is about to write somewhere. `again`: it has done so before, and that copy may
  /// still be there. True: nobody else can have a copy.
  bool note_written(const claim& c, bool again) noexcept;
  /// Whether the lease is out and this process stands for it. False in a process without a slot of its own.
  bool stands_for(const claim& c) noexcept;
  /// Whether the lease still keeps its block, whoever stands for it: the message was not loaded, and not given up.
  bool is_in_flight(const claim& c) noexcept;
  /// Gives back the lease of a message of which nobody has the bytes, if this process stands for it and there
  /// never was another copy.
  /// \return  whether it did.
  bool give_back_lost(const claim& c) noexcept;

  /// A lease that is out is kept by the block of `keeper`, which this process holds, in place of a process: whoever dies,
  /// it is out until `take_from_keeper`, `give_back_kept`, `acquire`, or the end of that block.
  /// \return  false: the lease is not out.
  bool keep_in(const claim& c, const claim& keeper) noexcept;
  /// From now on this process stands for a kept lease. False: it is not kept.
  bool take_from_keeper(const claim& c) noexcept;
  /// Gives back a lease that is kept. No effect, and false, if it is not.
  bool give_back_kept(const claim& c) noexcept;
  /// Gives back what blocks kept that are freed. So do `collect` and whoever finds no memory.
  /// \return  how many leases.
  std::uint64_t drop_unkept() noexcept;

  /// Two numbers, n and n + 1, for the ends of a new connection: by them other processes say how they read it.
  std::uint64_t new_ends() noexcept;
  /// From now on `is_read_elsewhere(end)`: bytes that arrive at this end may be read by code that does not tell.
  /// Never taken back; numbers that are 4096 apart share it.
  void read_elsewhere(std::uint64_t end) noexcept;
  bool is_read_elsewhere(std::uint64_t end) const noexcept;

  /// The block that holds address `p`, if this process holds a reference to it: its start, size and
  /// index. `ref.home` is null else. Takes no reference. `p` may be an address in the read-only mapping;
  /// `read_only` says so.
  allocation find(const void* p) const noexcept;

  /// Notes that this process got the block as a copy of its own, as if its bytes had come through a pipe: whoever
  /// passes the data on from here copies it, and does not share the block. `find` tells it from any address in
  /// the block, whatever wraps that, until this process drops its last reference. A note in private memory: other
  /// processes do not have it, and a forked child has it for the references that it inherits.
  /// \pre  the caller holds `ref`, which `acquire` returned; nobody else has a reference.
  void mark_carried(const block_ref& ref) noexcept;

  /// Whether another process references the block, or a lease keeps it. Dead processes count until they are found.
  /// \pre  the caller holds `ref`.
  bool held_elsewhere(const block_ref& ref) const noexcept;

  /// The address of the same byte in a mapping that cannot write: a store there is a SIGSEGV, and mprotect(2) is
  /// refused with EACCES. Each segment gets one such mapping per process, when it is first asked for; it stays as
  /// long as the arena is attached, and a forked child has it, too.
  /// \param p  an address in the data space, through either mapping.
  /// \return  null if `p` lies in neither.
  /// \throws sharedmem::error  ENOMEM: no address space; EACCES: this process has another user now; for a memfd
  ///         also EBADF, EMFILE, ENFILE, ENOENT.
  const std::byte* read_only(const void* p);
  /// The address of the same byte in the mapping that can write; null if `p` lies in neither. Wait-free.
  std::byte* writable(const void* p) const noexcept;

  /// Whether `p` lies in the data space of this arena, through either mapping. Wait-free.
  bool contains(const void* p) const noexcept;

  /// Another local reference to a block that is held. Throws what `share` throws.
  block_ref duplicate(const block_ref& ref);

  // What follows, if not noexcept, throws no_memory in a process that was forked without handlers and finds
  // all process slots taken.

  /// Gives this process's cached memory back to the system (MADV_REMOVE).
  /// \return  bytes by which the arena's resident memory shrank meanwhile.
  std::uint64_t trim();

  /// Takes back what dead processes held.
  /// \param leases  also their messages that nobody has loaded: who loads one afterwards finds it stale. Otherwise
  ///   these are kept until memory would be refused.
  /// \return  bytes of blocks that were freed: an estimate, others work on.
  std::uint64_t collect(bool leases);

  /// Gives back leases of living senders that are `older_than_ns` nanoseconds old, by the clock of this
  /// process: their messages become stale.
  /// \return  how many.
  std::uint64_t revoke(std::uint64_t older_than_ns);

  /// Bytes of free memory that the arena keeps warm, all processes together.
  std::uint64_t cache_limit() const noexcept;
  /// For all processes of the arena: each keeps to it from its next release on, this one at once.
  void set_cache_limit(std::uint64_t bytes) noexcept;

  /// Each count is right by itself; others work on meanwhile, so they need not be of the same moment.
  /// \throws sharedmem::error  ENOMEM, EMFILE: a segment of the arena cannot be attached.
  arena_statistics statistics();
  std::vector<participant_report> participants();  ///< who is in it now

  /// Checks header and tables of this arena.
  /// \throws corrupted  naming the first thing that does not make sense.
  void check() const;

  /// Whether the arena can be left: this process holds no block of it, and no lease is out, whoever took it.
  bool idle() const noexcept;
  struct SHAREDMEM_HIDDEN state;
  /// Its parts, for the library's own sources, which know them.
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
