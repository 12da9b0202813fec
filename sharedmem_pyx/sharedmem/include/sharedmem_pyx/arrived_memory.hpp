#pragma once
/// \file
/// Private memory of arrays that arrive as copies, by a handler of NumPy's data memory (NEP 49).
///
/// A program that receives one array after the other drops each before the next one arrives, or soon after that.
/// malloc then gives memory of many MiB back to the system, and the next array gets pages that the system has to
/// clear at the first write, which takes four times as long as the copy itself. So what arrays free is kept here, and
/// the next one is copied into pages that are there already. Where this process forks, nothing is kept, since the
/// first write to each page after that would copy it.
///
/// NumPy keeps the handler of its birth with each array and calls it for as long as the array lives: from any thread,
/// and while the interpreter ends. The memory comes from NumPy's own handler. There is no lock, which a forked child
/// could find locked for ever: whoever takes something out of a slot has it alone.
#include <Python.h>

#include <numpy/ndarraytypes.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstring>

#include <sharedmem_pyx/forking.hpp>

namespace sharedmem_pyx {

/// The functions of the handler get NumPy's own ones as their context.
/// Threads: any. Processes: private memory; a child that is forked by fork(2) begins with nothing kept.
class arrived_memory {
 public:
  /// Bytes that are kept at most, and of one array at most: malloc of glibc would keep twice as many.
  static constexpr std::size_t most_kept = std::size_t{32} << 20;

  /// Bytes from which on an array is kept: there are few slots. NumPy's own handler has a cache for small ones, which
  /// needs the GIL, but what is kept is also freed without it.
  static constexpr std::size_t least_kept = std::size_t{1} << 19;

  /// The handler, over NumPy's default one.
  static PyDataMem_Handler* handler_over(PyDataMem_Handler* numpys) noexcept {
    handler.allocator.ctx = &numpys->allocator;
    return &handler;
  }

  /// Frees what is kept: its bytes.
  static std::size_t drop() noexcept {
    std::size_t freed = 0;
    for (std::atomic<piece*>& slot : slots) freed += drop(slot);
    return freed;
  }

  static std::size_t kept() noexcept { return bytes_kept.load(); }

 private:
  /// Lies before the data of an array, which is aligned as malloc aligns it.
  struct piece {
    std::size_t bytes;  ///< of data
    std::byte padding[64 - sizeof(std::size_t)];
  };

  static piece* piece_of(void* data) noexcept { return static_cast<piece*>(data) - 1; }

  static const PyDataMemAllocator& numpys() noexcept {
    return *static_cast<const PyDataMemAllocator*>(handler.allocator.ctx);
  }

  static void free_now(piece* p) noexcept { numpys().free(numpys().ctx, p, p->bytes + sizeof(piece)); }

  static piece* take_out(std::atomic<piece*>& slot) noexcept {
    if (slot.load(std::memory_order_relaxed) == nullptr) return nullptr;
    piece* p = slot.exchange(nullptr);
    if (p != nullptr) bytes_kept.fetch_sub(p->bytes);
    return p;
  }

  static std::size_t drop(std::atomic<piece*>& slot) noexcept {
    piece* p = take_out(slot);
    if (p == nullptr) return 0;
    const std::size_t bytes = p->bytes;
    free_now(p);
    return bytes;
  }

  static void put_back(std::atomic<piece*>& slot, piece* p) noexcept {
    piece* none = nullptr;
    if (reserve(p->bytes) && slot.compare_exchange_strong(none, p)) return;
    give_up(p);  // another thread has filled it meanwhile, or has kept too much for it
  }

  /// Counts a piece before it gets into a slot, so that threads that keep pieces at once see each other's. False: that
  /// is more than may be kept.
  static bool reserve(std::size_t bytes) noexcept { return bytes_kept.fetch_add(bytes) + bytes <= most_kept; }

  /// Frees a piece that is counted.
  static void give_up(piece* p) noexcept {
    bytes_kept.fetch_sub(p->bytes);
    free_now(p);
  }

  /// Keeps a piece in place of the oldest ones, or frees it.
  static void keep(piece* p) noexcept {
    if (p->bytes < least_kept || p->bytes > most_kept) return free_now(p);  // small: it was resized
    const unsigned at = next.fetch_add(1);
    if (!reserve(p->bytes)) {
      for (unsigned i = 0; i < slots.size() && bytes_kept.load() > most_kept; ++i)
        drop(slots[(at + i) % slots.size()]);
      if (bytes_kept.load() > most_kept) return give_up(p);  // other threads are keeping pieces
    }
    if (piece* oldest = slots[at % slots.size()].exchange(p)) give_up(oldest);
  }

  /// A kept piece of at least so many bytes, of which an eighth is not used at most; or none.
  static piece* find(std::size_t bytes) noexcept {
    for (std::atomic<piece*>& slot : slots) {
      piece* p = take_out(slot);
      if (p == nullptr) continue;
      if (p->bytes >= bytes && p->bytes - bytes <= bytes / 8) return p;
      put_back(slot, p);
    }
    return nullptr;
  }

  static void* allocate(void* context, std::size_t bytes) {
    piece* p = find(bytes);
    if (p == nullptr) {
      const auto& from = *static_cast<PyDataMemAllocator*>(context);
      p = static_cast<piece*>(from.malloc(from.ctx, bytes + sizeof(piece)));
      if (p == nullptr && drop() > 0) p = static_cast<piece*>(from.malloc(from.ctx, bytes + sizeof(piece)));
      if (p == nullptr) return nullptr;
      p->bytes = bytes;
    }
    return p + 1;
  }

  static void* allocate_zeros(void* context, std::size_t count, std::size_t size) {
    std::size_t bytes = 0;
    if (__builtin_mul_overflow(count, size, &bytes)) return nullptr;
    void* data = allocate(context, bytes);
    if (data != nullptr) std::memset(data, 0, bytes);
    return data;
  }

  static void* resize(void* context, void* data, std::size_t bytes) {
    const auto& from = *static_cast<PyDataMemAllocator*>(context);
    auto* p = static_cast<piece*>(from.realloc(from.ctx, piece_of(data), bytes + sizeof(piece)));
    if (p == nullptr) return nullptr;
    p->bytes = bytes;
    return p + 1;
  }

  static void free(void*, void* data, std::size_t) { keep(piece_of(data)); }

  inline static std::array<std::atomic<piece*>, 8> slots{};
  inline static std::atomic<std::size_t> bytes_kept{0};
  inline static std::atomic<unsigned> next{0};  // the slot that was filled longest ago
  static PyDataMem_Handler handler;
  inline static const int handlers = at_fork([] { (void)drop(); }, nullptr, nullptr);
};

inline PyDataMem_Handler arrived_memory::handler{
    "sharedmem, arrived", 1, {nullptr, allocate, allocate_zeros, resize, free}};

}  // namespace sharedmem_pyx
