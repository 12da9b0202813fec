#include "shared/layout.hpp"

#include <algorithm>
#include <bit>
#include <limits>

namespace sharedmem {
namespace {

constexpr std::uint64_t round_up(std::uint64_t n, std::uint64_t unit) { return (n + unit - 1) / unit * unit; }

constexpr std::uint64_t at_tables = 2 * page_bytes;
constexpr std::uint64_t max_blocks = std::numeric_limits<std::uint32_t>::max();

/// Lays descriptors and data behind `plan`'s tables, the first of which ends at `start`, for as many
/// chunks as fit in `bytes`.
void place_data(geometry_plan& plan, std::uint64_t start, std::uint64_t chunks,
                std::uint32_t descriptor_bytes) {
  plan.at_descriptors = round_up(start, guard_bytes) + guard_bytes;  // a guard before
  const std::uint64_t table = chunks * descriptors_per_chunk * descriptor_bytes;
  plan.at_data =
      round_up(plan.at_descriptors + table + guard_bytes, chunk_bytes);  // and one behind, at least
  plan.chunks = static_cast<std::uint32_t>(chunks);
  plan.bytes = plan.at_data + chunks * chunk_bytes;
}

}  // namespace

geometry_plan geometry_plan::primary(std::uint64_t bytes, std::uint32_t slots, std::uint32_t descriptor_bytes,
                                     std::uint32_t names) {
  geometry_plan plan;
  const std::uint64_t per_chunk = chunk_bytes + std::uint64_t{descriptors_per_chunk} * descriptor_bytes;
  std::uint64_t chunks =
      std::clamp<std::uint64_t>(bytes / per_chunk, 4, max_blocks / descriptors_per_chunk / 2);
  // The chunk table is for all extents: room for the arena to grow fourfold, 8 GiB at least.
  plan.chunk_capacity = static_cast<std::uint32_t>(
      std::min<std::uint64_t>(std::max<std::uint64_t>(chunks * 4, 4096), max_blocks / descriptors_per_chunk));
  plan.lease_entries = chunks >= 512 ? 16384 : 1024;
  plan.at_participants = at_tables;
  plan.at_chunks = round_up(plan.at_participants + slots * sizeof(participant_entry), page_bytes);
  plan.at_leases = round_up(plan.at_chunks + plan.chunk_capacity * sizeof(chunk_entry), page_bytes);
  plan.names = names;
  plan.at_names =
      round_up(plan.at_leases + std::uint64_t{lease_group_count} * plan.lease_entries * sizeof(lease_words),
               page_bytes);
  const std::uint64_t end = plan.at_names + names * (sizeof(name_entry) + sizeof(name_fields));
  place_data(plan, end, chunks, descriptor_bytes);
  while (plan.bytes > bytes && chunks > 4) place_data(plan, end, --chunks, descriptor_bytes);
  return plan;
}

geometry_plan geometry_plan::extension(std::uint32_t chunks, std::uint32_t descriptor_bytes) {
  geometry_plan plan;
  place_data(plan, page_bytes, chunks, descriptor_bytes);
  return plan;
}

header* make_header(std::byte* where, const geometry_plan& plan, const arena_identity& of) noexcept {
  // `state` is not written: others may have condemned a host arena meanwhile.
  auto* h = reinterpret_cast<header*>(where);
  // Its last page exists from the start, so that reading the arena from outside changes nothing.
  h->names_mark.store(0, std::memory_order_relaxed);
  h->kind = of.kind;
  h->magic = arena_magic;
  h->uuid[0] = of.uuid[0];
  h->uuid[1] = of.uuid[1];
  h->host = of.host;
  h->bytes = plan.bytes;
  h->census = of.census;
  h->slots = of.slots;
  h->descriptor_bytes = descriptor_bytes_for(of.slots);
  h->lease_entries = plan.lease_entries;
  h->chunk_capacity = plan.chunk_capacity;
  h->chunks = plan.chunks;
  h->at_participants = plan.at_participants;
  h->at_chunks = plan.at_chunks;
  h->at_leases = plan.at_leases;
  h->names = plan.names;
  h->name_space = of.name_space;
  h->at_names = plan.at_names;
  h->at_descriptors = plan.at_descriptors;
  h->at_data = plan.at_data;
  h->checksum = header_checksum(*h);
  return h;
}

std::uint64_t header_checksum(const header& h) noexcept {
  std::uint64_t sum = 0x9e3779b97f4a7c15ULL;
  const auto mix = [&sum](std::uint64_t v) {  // the finaliser of splitmix64 (Steele, Lea, Flood 2014)
    sum ^= v;
    sum = (sum ^ sum >> 30) * 0xbf58476d1ce4e5b9ULL;
    sum = (sum ^ sum >> 27) * 0x94d049bb133111ebULL;
    sum ^= sum >> 31;
  };
  for (const std::uint64_t v : {std::uint64_t{h.kind},
                                h.magic,
                                h.uuid[0],
                                h.uuid[1],
                                h.host,
                                h.bytes,
                                std::uint64_t(std::uint32_t(h.census)),
                                std::uint64_t{h.slots},
                                std::uint64_t{h.descriptor_bytes},
                                std::uint64_t{h.lease_entries},
                                std::uint64_t{h.chunk_capacity},
                                std::uint64_t{h.chunks},
                                std::uint64_t{h.names},
                                h.name_space,
                                h.at_participants,
                                h.at_chunks,
                                h.at_leases,
                                h.at_names,
                                h.at_descriptors,
                                h.at_data})
    mix(v);
  return sum;
}

bool makes_sense(const header& h, std::uint64_t bytes) noexcept {
  const auto plan = geometry_plan::primary(h.bytes, h.slots, h.descriptor_bytes, h.names);
  return h.checksum == header_checksum(h) && h.bytes == bytes && h.slots >= 64 && h.slots % 64 == 0 &&
         h.slots <= max_slots && h.descriptor_bytes == descriptor_bytes_for(h.slots) &&
         h.at_participants >= sizeof(header) && h.at_chunks >= h.at_participants &&
         h.at_leases >= h.at_chunks && h.at_names >= h.at_leases && (h.names == 0 || h.names == host_names) &&
         h.at_descriptors >= h.at_names + h.names * (sizeof(name_entry) + sizeof(name_fields)) &&
         h.at_data >= h.at_descriptors && h.at_data <= bytes &&
         h.chunks <= (bytes - h.at_data) / chunk_bytes && plan.chunks == h.chunks;
}

}  // namespace sharedmem
