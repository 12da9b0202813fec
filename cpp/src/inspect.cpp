#include <sharedmem/inspect.hpp>

#include <algorithm>
#include <cstddef>
#include <utility>

#include <sharedmem/error.hpp>
#include "os/identity.hpp"
#include "segment/mapping.hpp"
#include "shared/layout.hpp"
#include "shared/lease_table.hpp"

#include "name_reports.hpp"
#include "os/machine.hpp"
#include "queue_reports.hpp"
#include "reports.hpp"
#include "shared/primary_tables.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto sc = std::memory_order_seq_cst;

/// Whether the process is known to be dead. Of processes in other namespaces this is never known.
bool is_gone(const header& h, const slot_word& seen, const segment_name& name) {
  if (seen.state == slot_state::reserved) return false;
  const process_namespaces here = this_namespaces();
  const std::uint64_t mine = std::uint64_t{here.pid} << 32 | here.time;
  if (mine == 0 || h.namespaces[seen.who.space].load(relaxed) != mine) return false;
  const liveness found = look_at({seen.who.pid, seen.who.start});
  return found == liveness::dead || (found == liveness::alive && !maps_segment(seen.who.pid, name, true));
}

struct request {
  const segment_name& name;
  inspection found;
};

bool read(const void* base, std::size_t bytes, void* context) {
  auto& wish = *static_cast<request*>(context);
  inspection& found = wish.found;
  auto* start = static_cast<std::byte*>(const_cast<void*>(base));
  header& h = *reinterpret_cast<header*>(start);
  if (bytes < sizeof h) return false;
  const std::uint32_t version = h.version.load(std::memory_order_acquire);
  if (version == 0 || h.magic != arena_magic) return false;
  if (version != layout_version || !makes_sense(h, bytes))
    throw corrupted(
        "the arena was made by another version of this library, or a stray write has changed its header");
  found.uuid = {h.uuid[0], h.uuid[1]};
  found.cache_limit = h.cache_limit.load(relaxed);
  found.segments = h.census >= 0 ? 2 : 1;
  for (const word64& x : h.extents) found.segments += x.load(relaxed) != 0;

  const auto* entries = reinterpret_cast<const participant_entry*>(start + h.at_participants);
  const auto mark = std::min<std::uint64_t>(h.slot_mark.load(sc), h.slots);
  for (std::uint32_t k = 0; k < mark; ++k) {
    const auto w = slot_word::from(entries[k].ctl.load(sc));
    if (w.state == slot_state::empty) continue;
    found.cached_bytes += entries[k].cached.load(relaxed);
    if (k >= h.slots - overflow_slots) continue;
    found.participants.push_back(report_of(k, entries[k], w, is_gone(h, w, wish.name)));
  }
  primary_tables words{start};
  lease_table<native_atomics, primary_tables> leases(words);
  const bool same_clock = this_namespaces().time == static_cast<std::uint32_t>(h.namespaces[0].load(relaxed));
  const std::uint64_t now = same_clock ? monotonic_ns() : 0;
  in_flight all;
  leases.each([&](std::uint32_t, lease_word v, auto* e) {
    if (v.state == lease_state::out) all.add(v, e, now);
  });
  found.leases = all.leases;
  found.bytes_in_flight = all.bytes;
  found.oldest_in_flight_ns = all.oldest_ns;
  count_messages(leases, found.participants, now);
  found.has_names = h.names != 0;
  const auto block = [&](std::uint32_t b) {  // of the first segment, which alone is seen here
    const std::uint64_t there =
        os::memory_is_promised ? h.descriptors_used[0].load(relaxed) : h.chunks * descriptors_per_chunk;
    return b < there
               ? reinterpret_cast<word64*>(start + h.at_descriptors + std::uint64_t{b} * h.descriptor_bytes)
               : nullptr;
  };
  const auto living = [&](std::uint32_t slot) {
    const auto w = slot_word::from(entries[slot].ctl.load(sc));
    return takes_part(w.state) && !is_gone(h, w, wish.name) ? w.who.pid : 0;
  };
  found.names = report_names(words, static_cast<std::uint32_t>(mark), block, living, now);
  found.queues = report_queues(
      leases, static_cast<std::uint32_t>(mark), block,
      [&](std::uint32_t, std::uint64_t place) -> const std::byte* {
        const std::uint64_t room = std::uint64_t{h.chunks} * chunk_bytes;
        return place % 64 == 0 && place <= room && queue::block_bytes <= room - place
                   ? start + h.at_data + place
                   : nullptr;
      },
      living, now);
  return true;
}

}  // namespace

std::optional<inspection> inspect(const segment_name& name, std::uint64_t tag) {
  request wish{name, {}};
  if (!mapping::examine(name, tag, read, &wish)) return std::nullopt;
  return std::move(wish.found);
}

}  // namespace sharedmem
