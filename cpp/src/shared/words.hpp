#pragma once

#include <cstddef>
#include <cstdint>

#include "os/identity.hpp"

/// \file
/// How the protocol's 64-bit words are packed (bit 0 is the lowest) and in which order they lie. A word of
/// zeros, as in a fresh page, is the initial state of every kind: FREE, VACANT, VOID, UNCLAIMED.
namespace sharedmem {

inline constexpr int generation_bits = 48;
inline constexpr std::uint64_t generation_mask = (std::uint64_t{1} << generation_bits) - 1;
inline constexpr std::uint32_t max_slots = 1u << 14;

/// Slot "nobody" in a lease: its sender is known to be dead.
inline constexpr std::uint32_t nobody = max_slots - 1;
/// Slot in a lease that belongs to no process: the block in its clock (`kept_by`) keeps it. Such a
/// lease is in use as long as that block lives, whichever process dies.
inline constexpr std::uint32_t kept = max_slots - 2;
/// The clock of a kept lease. No time has its highest bit.
inline constexpr std::uint64_t keeper_mark = std::uint64_t{1} << 63;
constexpr std::uint64_t kept_by(std::uint32_t block, std::uint64_t generation) noexcept {
  return keeper_mark | std::uint64_t{block} << 32 | (generation & 0xffffffffU);
}

/// Words of a block's descriptor before its holders, and their order.
enum : int { at_life = 0, at_lease_groups = 1, at_place = 2, at_bytes = 3, at_holders = 4 };
/// Words of a lease entry.
enum : int { at_word = 0, at_what = 1, at_clock = 2, at_lease_bytes = 3, lease_entry_words = 4 };
/// Bit of the word `at_lease_bytes`: its message was written twice, or by a process that was not responsible for it.
/// Then not all copies are known, and the lease stays in use until one is loaded.
inline constexpr std::uint64_t copied_message = std::uint64_t{1} << 63;
/// Number of groups of the lease table, each with a bit in `lease_groups`.
inline constexpr std::uint32_t lease_group_count = 64;

/// `life` of a block: state:2, slot:14, generation:48.
enum class life_state : std::uint8_t { free = 0, live = 1, freeing = 2, emptying = 3 };

struct life_word {
  life_state state = life_state::free;
  std::uint32_t slot = 0;
  std::uint64_t generation = 0;

  static constexpr life_word from(std::uint64_t bits) noexcept {
    return {static_cast<life_state>(bits & 3), static_cast<std::uint32_t>(bits >> 2) & (max_slots - 1),
            bits >> 16};
  }
  constexpr std::uint64_t bits() const noexcept {
    return static_cast<std::uint64_t>(state) | std::uint64_t{slot} << 2 | generation << 16;
  }
};

/// `word` of a lease entry: state:2, slot:14, nonce:48.
enum class lease_state : std::uint8_t { vacant = 0, filling = 1, out = 2, loading = 3 };

struct lease_word {
  lease_state state = lease_state::vacant;
  std::uint32_t slot = 0;
  std::uint64_t nonce = 0;

  static constexpr lease_word from(std::uint64_t bits) noexcept {
    return {static_cast<lease_state>(bits & 3), static_cast<std::uint32_t>(bits >> 2) & (max_slots - 1),
            bits >> 16};
  }
  constexpr std::uint64_t bits() const noexcept {
    return static_cast<std::uint64_t>(state) | std::uint64_t{slot} << 2 | nonce << 16;
  }
};

/// `word` of an entry of the table of names: state:3, slot:14, nonce:47. Vacating an entry increments the nonce.
enum class name_state : std::uint8_t {
  vacant = 0,
  filling = 1,   ///< the slot's process writes name and hash, which no other process reads
  claiming = 2,  ///< provisional: any process that wants the same name may revoke it
  building = 3,  ///< only the slot's process makes the block of this name
  ready = 4,     ///< refers to an array, as long as that lives
  failed = 5,    ///< has the text of an exception, for those that waited
};

struct name_word {
  static constexpr std::uint64_t nonce_mask = (std::uint64_t{1} << 47) - 1;

  name_state state = name_state::vacant;
  std::uint32_t slot = 0;
  std::uint64_t nonce = 0;

  static constexpr name_word from(std::uint64_t bits) noexcept {
    return {static_cast<name_state>(bits & 7), static_cast<std::uint32_t>(bits >> 3) & (max_slots - 1),
            bits >> 17};
  }
  constexpr std::uint64_t bits() const noexcept {
    return static_cast<std::uint64_t>(state) | std::uint64_t{slot} << 3 | nonce << 17;
  }
  /// The word of the entry after it is vacated.
  constexpr std::uint64_t vacated() const noexcept {
    return name_word{name_state::vacant, 0, (nonce + 1) & nonce_mask}.bits();
  }
};

/// Words of an entry's fields, and their order: bytes of the name and of its text, nanoseconds, the pid that claimed
/// the name, block and generation of the array, bytes of the name, bytes of the text.
enum : std::uint32_t {
  at_name_length = 0,
  at_text_length = 1,
  at_since = 2,
  at_claimer = 3,
  at_named_block = 4,
  at_named_generation = 5,
  at_name_bytes = 6,
  at_text_bytes = at_name_bytes + 32,
  name_field_words = 256
};
inline constexpr std::size_t longest_name = 255;  ///< bytes of UTF-8
inline constexpr std::size_t longest_text = (name_field_words - at_text_bytes) * 8;

/// A process, unique within a boot of the machine: its namespaces' index in the arena's
/// table, its start time and its pid (22 bits, the kernel's PID_MAX_LIMIT). The actor is part of the words that
/// refer to a process, so a compare-and-swap on them cannot suffer from ABA.
struct actor {
  std::uint32_t pid = 0;
  std::uint64_t start = 0;
  std::uint32_t space = 0;

  friend constexpr bool operator==(const actor&, const actor&) = default;
};

/// Comments and the model call `empty` VOID; `void` is a keyword of C++.
/// `ctl` of a participant's slot: state:3, namespace:5, start:34, pid:22.
/// ENDING: a process that has begun its orderly end. It participates like an ACTIVE one, and is repaired like one
/// when it dies, but other ending processes do not rely on it to keep the arena (doc/model/ending.pml).
enum class slot_state : std::uint8_t { empty = 0, active = 1, reserved = 2, repair = 3, ending = 4 };

/// Whether the slot belongs to a process that uses the arena.
constexpr bool takes_part(slot_state s) noexcept {
  return s == slot_state::active || s == slot_state::ending;
}

struct slot_word {
  slot_state state = slot_state::empty;
  actor who;

  static constexpr slot_word from(std::uint64_t bits) noexcept {
    return {static_cast<slot_state>(bits & 7),
            {static_cast<std::uint32_t>(bits >> 42), (bits >> 8) & start_mask,
             static_cast<std::uint32_t>(bits >> 3) & 31}};
  }
  constexpr std::uint64_t bits() const noexcept {
    return static_cast<std::uint64_t>(state) | std::uint64_t{who.space} << 3 | (who.start & start_mask) << 8 |
           std::uint64_t{who.pid} << 42;
  }
};

/// `owner` of a chunk: state:2, slot:14, distance:32 (of an inner chunk from the head of its run).
enum class chunk_state : std::uint8_t { unclaimed = 0, owned = 1, orphan = 2, inner = 3 };

struct owner_word {
  chunk_state state = chunk_state::unclaimed;
  std::uint32_t slot = 0;
  std::uint32_t distance = 0;

  static constexpr owner_word from(std::uint64_t bits) noexcept {
    return {static_cast<chunk_state>(bits & 3), static_cast<std::uint32_t>(bits >> 2) & (max_slots - 1),
            static_cast<std::uint32_t>(bits >> 16)};
  }
  constexpr std::uint64_t bits() const noexcept {
    return static_cast<std::uint64_t>(state) | std::uint64_t{slot} << 2 | std::uint64_t{distance} << 16;
  }
};

}  // namespace sharedmem
