#pragma once

/// The private state of a piece of data space, in the process that owns it: a chunk cut into equal blocks,
/// or a run of chunks that is one block.
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "heap/size_class.hpp"

namespace sharedmem {

/// Private state of a block of an owned chunk. FREE in the shared `life` says "no claim by another
/// process"; only the owner knows whether it uses the block itself.
enum class use : std::uint8_t {
  unlisted = 0,   // neither free nor ours: held by others, as found when the chunk was adopted
  listed = 1,     // in a free list
  in_use = 2,     // allocated, never shared: no other process can name it
  published = 3,  // shared at least once since it was allocated
};

struct slab {
  std::uint32_t chunk = 0;       // number of its first chunk
  std::uint32_t run = 1;         // how many chunks it has
  std::uint32_t size_class = no_class;
  std::uint32_t count = 1;       // how many blocks it is cut into
  std::uint32_t first = 0;       // index of the descriptor of block 0
  std::uint64_t block_bytes = 0;
  std::byte* data = nullptr;
  std::uint32_t free_count = 0;  // how many free blocks `stack` lists
  std::uint32_t carved = 0;      // blocks from this index on were never handed out
  bool zeroed = false;           // bytes that were never handed out read as zero
  bool populated = false;        // pages are known to be present
  bool in_class_list = false;
  slab* next = nullptr;          // in the list of slabs of this class that have free blocks
  slab* previous = nullptr;
  slab* next_owned = nullptr;    // in the list of all slabs that this process owns
  slab* previous_owned = nullptr;
  std::atomic<use>* states = nullptr;
  std::uint16_t* stack = nullptr;

  std::uint32_t available() const noexcept { return free_count + (count - carved); }
  bool is_free() const noexcept { return available() == count; }  // of a slab: no block is in use
  std::byte* block(std::uint32_t i) const noexcept { return data + std::uint64_t{i} * block_bytes; }

  /// Private memory for a slab of `count` blocks, its tables behind it.
  static slab* make(std::uint32_t count) {
    static_assert(sizeof(std::atomic<use>) == 1);
    const std::size_t states_bytes = (count + 7u) / 8 * 8;
    void* raw = std::calloc(1, sizeof(slab) + states_bytes + count * sizeof(std::uint16_t));
    if (raw == nullptr) throw std::bad_alloc();
    auto* s = new (raw) slab;
    s->count = count;
    s->states = reinterpret_cast<std::atomic<use>*>(static_cast<std::byte*>(raw) + sizeof(slab));
    s->stack = reinterpret_cast<std::uint16_t*>(static_cast<std::byte*>(raw) + sizeof(slab) + states_bytes);
    return s;
  }
  static void destroy(slab* s) noexcept { std::free(s); }
};

}  // namespace sharedmem
