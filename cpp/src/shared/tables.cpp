#include "shared/tables.hpp"

#include <algorithm>
#include <cerrno>
#include <new>
#include <string>

#include <sharedmem/error.hpp>

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;

/// Where an extension segment is, packed into extent_word::name (42 bits).
std::uint64_t pack(const segment_name& name) noexcept {
  const auto id = static_cast<std::uint64_t>(static_cast<std::uint32_t>(name.id));
  return name.kind == backing::memfd ? (id & 0xfffff) | static_cast<std::uint64_t>(name.pid) << 20 : id;
}

segment_name unpack(backing kind, std::uint64_t name) noexcept {
  if (kind == backing::memfd)
    return {kind, static_cast<std::int32_t>(name & 0xfffff), static_cast<std::int32_t>(name >> 20)};
  return {kind, static_cast<std::int32_t>(name), 0};
}

/// Names a memfd so that one extent of an arena cannot be mistaken for another.
std::uint64_t tag_of(const header& h, std::uint32_t index) noexcept { return h.uuid[0] + index; }

struct expected_extent {
  std::uint64_t uuid[2];
  std::uint32_t index;
};

bool is_extent(const void* base, std::size_t bytes, void* context) {
  const auto& wish = *static_cast<const expected_extent*>(context);
  const auto& h = *static_cast<const extent_header*>(base);
  return bytes >= sizeof h && h.version.load(std::memory_order_acquire) == layout_version &&
         h.magic == extent_magic && h.uuid[0] == wish.uuid[0] && h.uuid[1] == wish.uuid[1] &&
         h.index == wish.index && h.bytes == bytes;
}

}  // namespace

void tables::open(mapping&& primary) {
  std::byte* base = primary.data();
  head_ = reinterpret_cast<header*>(base);
  participants_ = reinterpret_cast<participant_entry*>(base + head_->at_participants);
  chunks_ = reinterpret_cast<chunk_entry*>(base + head_->at_chunks);
  leases_ = reinterpret_cast<lease_words*>(base + head_->at_leases);
  names_ = reinterpret_cast<name_entry*>(base + head_->at_names);
  name_fields_ = reinterpret_cast<name_fields*>(names_ + head_->names);
  stride_ = head_->descriptor_bytes;
  lease_entries_ = head_->lease_entries;
  geometry_plan plan;
  plan.at_descriptors = head_->at_descriptors;
  plan.at_data = head_->at_data;
  add(std::move(primary), head_->chunks, plan);
}

void tables::add(mapping&& memory, std::uint32_t chunks, const geometry_plan& plan) {
  const std::uint32_t index = extent_count_.load(std::memory_order_relaxed);
  extent& e = extents_[index];
  e.chunks = chunks;
  e.blocks = chunks * descriptors_per_chunk;
  if (index > 0) {
    e.first_chunk = extents_[index - 1].first_chunk + extents_[index - 1].chunks;
    e.first_block = extents_[index - 1].first_block + extents_[index - 1].blocks;
  }
  if (memory) {
    e.data = memory.data() + plan.at_data;
    e.descriptors = memory.data() + plan.at_descriptors;
    memory.guard(plan.at_descriptors - guard_bytes, guard_bytes);
    memory.guard(plan.at_data - guard_bytes, guard_bytes);
    memory.prefer_huge(plan.at_data, std::uint64_t{chunks} * chunk_bytes);
    e.memory = std::move(memory);
  }
  extent_count_.store(index + 1, std::memory_order_release);
}

extent& tables::extent_of_block(std::uint32_t b) const noexcept {
  const std::uint32_t n = extents();
  for (std::uint32_t k = 0; k < n; ++k)
    if (b - extents_[k].first_block < extents_[k].blocks) return extents_[k];
  return extents_[0];
}

extent& tables::extent_of_chunk(std::uint32_t c) const noexcept {
  const std::uint32_t n = extents();
  for (std::uint32_t k = 0; k < n; ++k)
    if (c - extents_[k].first_chunk < extents_[k].chunks) return extents_[k];
  return extents_[0];
}

std::uint32_t tables::chunk_at(const void* p) const noexcept {
  const std::uint32_t n = extents();
  for (std::uint32_t k = 0; k < n; ++k)
    if (extents_[k].has(p))
      return extents_[k].first_chunk +
             static_cast<std::uint32_t>(
                 static_cast<std::uint64_t>(static_cast<const std::byte*>(p) - extents_[k].data) /
                 chunk_bytes);
  return chunk_count();
}

std::byte* tables::find_writable(const void* p) const noexcept {
  const std::uint32_t n = extents();
  for (std::uint32_t k = 0; k < n; ++k) {
    const extent& e = extents_[k];
    if (e.has_read_only(p))
      return e.data + (static_cast<const std::byte*>(p) - e.read_only_data.load(relaxed));
  }
  return nullptr;
}

std::byte* tables::read_only(const void* p) {
  extent& e = extent_of_chunk(chunk_at(p));
  std::byte* seen = e.read_only_data.load(std::memory_order_acquire);
  if (seen == nullptr) [[unlikely]] {
    const std::lock_guard lock(growing_);
    seen = e.read_only_data.load(relaxed);
    if (seen == nullptr) {
      e.read_only_memory = e.memory.view_read_only();
      seen = e.read_only_memory.data() + (e.data - e.memory.data());
      e.read_only_data.store(seen, std::memory_order_release);
      some_read_only_.store(true, std::memory_order_release);
    }
  }
  return seen + (static_cast<const std::byte*>(p) - e.data);
}

void tables::sync() {
  const std::lock_guard lock(growing_);
  for (std::uint32_t k = extents(); k < max_extents; ++k) {
    const auto w = extent_word::from(head_->extents[k].load(std::memory_order_acquire));
    if (w.chunks == 0) return;
    const auto plan = geometry_plan::extension(static_cast<std::uint32_t>(w.chunks), stride_);
    expected_extent wish{{head_->uuid[0], head_->uuid[1]}, k};
    mapping memory;
    try {
      memory = mapping::attach(unpack(static_cast<backing>(head_->kind), w.name), plan.bytes,
                               tag_of(*head_, k), is_extent, &wish);
    } catch (const stale_handle&) {  // its creator died before another process had attached it
    }
    add(std::move(memory), plan.chunks, plan);
  }
}

bool tables::try_sync() noexcept {
  try {
    sync();
    return true;
  } catch (...) {
    return false;
  }
}

bool tables::extend(std::uint32_t wanted) {
  sync();
  const std::lock_guard lock(growing_);
  const std::uint32_t k = extents();
  const std::uint32_t used = chunk_count();
  if (k == max_extents || wanted > head_->chunk_capacity - used) return false;
  // As large as the primary segment if possible, otherwise as large as needed.
  std::uint32_t chunks = std::min(std::max(wanted, head_->chunks), head_->chunk_capacity - used);
  for (;; chunks = std::max(wanted, chunks / 2)) {
    const auto plan = geometry_plan::extension(chunks, stride_);
    mapping memory;
    try {
      memory = mapping::create(static_cast<backing>(head_->kind), plan.bytes, tag_of(*head_, k));
      if (!memory.commit(0, page_bytes))
        throw error(ENOMEM, "commit",
                    "the first page of a segment of " + std::to_string(plan.bytes) + " bytes");
    } catch (const error&) {
      if (chunks == wanted) throw;
      continue;
    }
    auto* h = new (memory.data()) extent_header{};
    h->index = k;
    h->magic = extent_magic;
    h->uuid[0] = head_->uuid[0];
    h->uuid[1] = head_->uuid[1];
    h->bytes = plan.bytes;
    h->chunks = plan.chunks;
    h->version.store(layout_version, std::memory_order_release);
    step<point::extent_created>();
    std::uint64_t none = 0;
    const extent_word w{plan.chunks, pack(memory.name())};
    // The loser's segment disappears with its mapping; the winner's is attached by the next sync.
    if (head_->extents[k].compare_exchange_strong(none, w.bits(), std::memory_order_acq_rel))
      add(std::move(memory), plan.chunks, plan);
    step<point::extent_joined>();
    return true;
  }
}

}  // namespace sharedmem
