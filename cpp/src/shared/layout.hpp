#pragma once

/// \file
/// The fixed bytes of an arena: what lies where in its segments. Everything here is shared memory, read
/// by every process of the arena whatever its word size: fixed-width words, standard layout, versioned.
///
///     Primary segment:    header | participants | chunk table | leases | names | guard | descriptors | guard | data
///     Extension segment:  extent_header                        | guard | descriptors | guard | data
///
/// The guards are inaccessible pages, so that an overrun of an array ends before the tables. All tables
/// are sparse; reading a page that was never written would allocate it, so tables are read up to their
/// marks only (shmem: mm/shmem.c, shmem_fault).
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "os/pages.hpp"
#include "shared/words.hpp"

namespace sharedmem {

using word64 = std::atomic<std::uint64_t>;
using word32 = std::atomic<std::uint32_t>;
static_assert(word64::is_always_lock_free && word32::is_always_lock_free);
static_assert(sizeof(word64) == 8 && alignof(word64) == 8 && std::is_standard_layout_v<word64>);

inline constexpr std::uint32_t layout_version = 2;
inline constexpr std::uint64_t arena_magic = 0x31616e657261'6d73ULL;   ///< "smarena1", little-endian
inline constexpr std::uint64_t extent_magic = 0x31746e657478'6d73ULL;  ///< "smxtent1"

inline constexpr std::uint64_t chunk_bytes = os::huge_page_size;
/// What tables are aligned to in a segment. The system's pages may be larger: `os::page_size`.
inline constexpr std::uint64_t page_bytes = 4096;
/// Of a guard, and what it is aligned to: the largest pages of the kernels that this runs on (AArch64, POWER),
/// since mprotect(2) takes whole ones only.
inline constexpr std::uint64_t guard_bytes = 65536;
inline constexpr std::uint32_t max_extents = 64;
inline constexpr std::uint32_t max_namespaces = 32;
inline constexpr std::uint32_t overflow_slots = 2;  ///< see `header::overflow`
inline constexpr std::uint32_t end_words = 64;
inline constexpr std::uint32_t descriptors_per_chunk = 8192;  ///< one per 256 bytes of data space

inline constexpr std::uint32_t host_names = 4096;  ///< entries of a host arena's table of names

/// Of a host arena: whether others may join it (doc/model/host.pml). A tree's arena is UNBORN for ever.
enum class birth : std::uint32_t { unborn = 0, open = 1, condemned = 2 };

/// One line per process slot.
struct alignas(64) participant_entry {
  word64 ctl;  ///< slot_word
  word64 returns;  ///< not 0: others freed blocks of this slot's chunks; a hint, losing it costs a sweep
  word64 cached;  ///< bytes of free but resident runs in its chunks; an estimate
  word64 chunks;  ///< chunks owned; for reports
  word64 forking;  ///< not 0: its process gives an overflow slot's bits to a child that it is about to fork
  word64
      program;  ///< of its process: changes with exec; 0 while it is not known, and whenever the slot is VOID
  word64
      reserver;  ///< of a RESERVED slot: one more than the slot of the process that reserved it; 0: unknown
  word64 reserved[1];

  /// Forgets the process that had the slot before. `runs`: the program of the one that has it now; 0: none has.
  void reset(std::uint64_t runs) noexcept {
    for (word64* each : {&returns, &cached, &chunks, &forking, &reserver})
      each->store(0, std::memory_order_relaxed);
    program.store(runs, std::memory_order_seq_cst);
  }
};

/// One line per chunk of data space.
struct alignas(64) chunk_entry {
  word64 owner;  ///< owner_word
  word64 cut;  ///< class:8, run length in chunks:32 (cut_word); written before a block is handed out
  word32 first;  ///< first descriptor of the run that belongs to this chunk
  word32 capacity;  ///< descriptors in that run; 0: none yet
  word32 published;  ///< descriptors of the run ever published: [first, first + published)
  word32 has_returns;  ///< a block was freed by another process; a hint
  word64 emptied;  ///< not 0: the pages of its free block were given back already
  word64
      not_zero;  ///< not 0: it is UNCLAIMED once more, and its bytes are anything (`os::discarded_is_zero`)
  word64 reserved[2];
};

/// What the table of names looks through.
struct name_entry {
  word64 word;  ///< name_word
  word64 hash;  ///< of the name
};
/// What it then compares and reads; see words.hpp.
struct name_fields {
  word64 words[name_field_words];
};

struct lease_words {
  word64 words[lease_entry_words];
};

/// An extension segment of the arena. 0: none. chunks:22, then SysV id:42, or memfd pid:22 fd:20.
struct extent_word {
  std::uint64_t chunks = 0;
  std::uint64_t name = 0;
  static constexpr extent_word from(std::uint64_t bits) noexcept {
    return {bits & ((1u << 22) - 1), bits >> 22};
  }
  constexpr std::uint64_t bits() const noexcept { return chunks | name << 22; }
};

struct header {
  word32 version;  ///< layout_version; stored last with release: 0 means not ready
  std::uint32_t kind;  ///< backing
  std::uint64_t magic;
  std::uint64_t uuid[2];
  std::uint64_t host;  ///< identity.hpp: boot and IPC namespace
  std::uint64_t bytes;  ///< of the primary segment
  std::int32_t census;  ///< id of the census segment, -1: none
  std::uint32_t slots;  ///< process slots; the last ones are the overflow slots
  std::uint32_t descriptor_bytes;
  std::uint32_t lease_entries;  ///< per group
  std::uint32_t chunk_capacity;  ///< entries of the chunk table, for all extents
  std::uint32_t chunks;  ///< of the primary segment
  std::uint32_t names;  ///< entries of the table of names; 0: a tree's arena
  std::uint32_t reserved;
  std::uint64_t name_space;  ///< of a host arena: hash of SHAREDMEM_NAMESPACE
  std::uint64_t at_participants, at_chunks, at_leases, at_names, at_descriptors, at_data;  ///< byte offsets
  std::uint64_t checksum;  ///< of all the above but `version`

  alignas(64) word64 slot_mark;  ///< slots at or above it are VOID and own no bit
  word64 chunk_mark;  ///< chunks at or above it were never claimed
  word64 unclaimed;  ///< chunks below the mark that are UNCLAIMED; a hint
  word64 orphans;  ///< changes after chunks have become ORPHAN
  word64 repairs;  ///< dead slots repaired so far
  word64 cache_limit;  ///< bytes of free memory kept warm, all processes together
  word64 overflow;  ///< overflow_used and overflow_clearing of each overflow slot
  alignas(64) word64 namespaces[max_namespaces];  ///< pid namespace:32, time namespace:32
  alignas(64) word64 extents[max_extents];  ///< extent_word; [0] unused
  alignas(64) word64 descriptors_used[max_extents];
  alignas(64) word64 lease_marks[lease_group_count * 8];  ///< one line per group
  alignas(64) word64 ends;  ///< numbers given to ends of connections, see arena::new_ends
  word64 read_elsewhere[end_words];  ///< a bit per number, modulo their count: see arena::read_elsewhere
  alignas(64) word64 names_mark;  ///< entries of the table of names at or above it were never used
  word32 names_bell;  ///< incremented, and its waiters woken, when a building ends
  word32 state;  ///< birth
};
static_assert(std::is_standard_layout_v<header> && sizeof(header) <= 2 * page_bytes);
static_assert(sizeof(participant_entry) == 64 && sizeof(chunk_entry) == 64 && sizeof(lease_words) == 32);
static_assert(sizeof(name_entry) == 16 && sizeof(name_fields) == 2048);

struct extent_header {
  word32 version;
  std::uint32_t index;
  std::uint64_t magic;
  std::uint64_t uuid[2];
  std::uint64_t bytes;
  std::uint64_t chunks;
};

/// `cut` of a chunk: how its bytes are divided.
struct cut_word {
  std::uint32_t size_class = 0;  ///< size_class.hpp; `no_class`: a run of chunks, one block
  std::uint32_t run = 0;  ///< chunks
  static constexpr cut_word from(std::uint64_t bits) noexcept {
    return {static_cast<std::uint32_t>(bits) & 0xff, static_cast<std::uint32_t>(bits >> 8)};
  }
  constexpr std::uint64_t bits() const noexcept { return size_class | std::uint64_t{run} << 8; }
};

/// Bits of `header::overflow`. A child that finds no slot of its own shares an overflow slot with others. Once
/// none of them is left, the slot's bits are cleared. A child that is forked meanwhile must not get such a bit, so it
/// gets the other overflow slot. One of the two is cleared at a time, so a fork never waits for the clearing.
///
/// Whether a child may have bits of overflow slot k.
constexpr std::uint64_t overflow_used(std::uint32_t k) noexcept { return std::uint64_t{1} << 62 >> 2 * k; }
/// Whether the actor in the `ctl` of overflow slot k is clearing its bits; no fork gives them to a child then.
constexpr std::uint64_t overflow_clearing(std::uint32_t k) noexcept {
  return std::uint64_t{1} << 63 >> 2 * k;
}

/// Where the parts of an arena of a given size lie. `primary`: with the tables of the whole arena.
struct geometry_plan {
  std::uint64_t bytes = 0;
  std::uint32_t chunks = 0;
  std::uint64_t at_participants = 0, at_chunks = 0, at_leases = 0, at_names = 0, at_descriptors = 0,
                at_data = 0;
  std::uint32_t chunk_capacity = 0, lease_entries = 0, names = 0;

  /// `names`: entries of the table of names.
  static geometry_plan primary(std::uint64_t bytes, std::uint32_t slots, std::uint32_t descriptor_bytes,
                               std::uint32_t names = 0);
  static geometry_plan extension(std::uint32_t chunks, std::uint32_t descriptor_bytes);
};

/// Bytes of a block descriptor with room for `slots` holders bits; 64 for 256 slots.
constexpr std::uint32_t descriptor_bytes_for(std::uint32_t slots) noexcept {
  const std::uint32_t raw = 32 + slots / 64 * 8;
  return (raw + 63) / 64 * 64;
}

/// What a header says beside its arena's geometry.
struct arena_identity {
  std::uint32_t kind = 0;  ///< backing
  std::uint64_t uuid[2] = {};
  std::uint64_t host = 0;
  std::int32_t census = -1;
  std::uint32_t slots = 0;
  std::uint64_t name_space = 0;
};

/// Writes the constant part of a header into the zeroed bytes at `where`. It is not ready yet: the caller
/// stores `version` last.
header* make_header(std::byte* where, const geometry_plan& plan, const arena_identity& of) noexcept;

/// Checksum of the header's constant part.
std::uint64_t header_checksum(const header& h) noexcept;

/// Whether the constant part of a complete header makes sense for a primary segment of `bytes` bytes.
bool makes_sense(const header& h, std::uint64_t bytes) noexcept;

}  // namespace sharedmem
