/// \file
/// Reading an arena from a process that is not a participant.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include <sharedmem/arena.hpp>
#include <sharedmem/export.hpp>
#include <sharedmem/names.hpp>
#include <sharedmem/queue.hpp>
#include <sharedmem/segment.hpp>

namespace sharedmem {

/// An arena as it was at some moment: others go on using it.
struct inspection {
  std::array<std::uint64_t, 2> uuid{};                ///< as in its locator
  std::uint64_t cached_bytes = 0;                     ///< as in `arena_statistics`
  std::uint64_t cache_limit = 0;                      ///< as in `arena_statistics`
  std::uint64_t leases = 0;                           ///< as in `arena_statistics`
  std::uint64_t bytes_in_flight = 0;                  ///< as in `arena_statistics`
  std::uint64_t oldest_in_flight_ns = 0;              ///< as in `arena_statistics`
  std::uint32_t segments = 0;                         ///< its primary segment, its extensions, its census
  std::vector<participant_report> participants;       ///< none of them `self`
  bool has_names = false;                             ///< whether it is an arena of names
  std::vector<name_report> names;                     ///< as in `all_names`
  std::vector<queue_report> queues;  ///< as of `queues_in`, those that lie in the primary segment
};

/// Reads an arena through a read-only mapping, which is detached on return.
/// \param name  its primary segment.
/// \param tag  memfd only: the number in its name, the first word of the arena's uuid.
/// \return  nothing if the segment does not belong to an arena, is being made, or extends an arena.
/// \throws stale_handle      it no longer exists.
/// \throws sharedmem::error  EPERM: it belongs to another user and is not attached; ENOMEM: no address space; ...
/// \throws corrupted         it was made by another version of this library, or its header is invalid.
[[nodiscard]] SHAREDMEM_API std::optional<inspection> inspect(const segment_name& name,
                                                              std::uint64_t tag = 0);

}  // namespace sharedmem
