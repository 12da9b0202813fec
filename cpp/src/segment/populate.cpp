// Making pages present: mapping::populate. benchmarks/populate.cpp measures the ways to do it.
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>

#include "segment/mapping.hpp"

#include "os/pages.hpp"
#include "os/threads.hpp"

namespace sharedmem {
namespace {

// Calls that this kernel does not have; they are not tried again.
std::atomic<bool> no_collapse{false};
std::atomic<bool> no_fault_in{false};

// A write fault that changes nothing, whatever other processes do to the byte. Not fetch_or(0): a
// compiler may turn that into a load.
void touch(std::byte* at) noexcept {
  std::atomic_ref<unsigned char> byte{*reinterpret_cast<unsigned char*>(at)};
  unsigned char value = byte.load(std::memory_order_relaxed);
  byte.compare_exchange_strong(value, value, std::memory_order_relaxed);
}

void touch_each(std::byte* base, std::size_t bytes, std::size_t step) noexcept {
  for (std::size_t at = 0; at < bytes; at += step) touch(base + at);
}

// Whole pages, of the small kind unless huge ones are there already.
void fault_in(std::byte* base, std::size_t bytes) noexcept {
  if (!no_fault_in.load(std::memory_order_relaxed)) {
    const int code = os::fault_in(base, bytes);
    if (code == 0) return;
    if (code == EINVAL) no_fault_in.store(true, std::memory_order_relaxed);  // before Linux 5.14
  }
  touch_each(base, bytes, os::page_size());
}

// Whole huge pages' worth. Collapsing an untouched range is EINVAL: a byte of each is touched first.
void make_huge(std::byte* base, std::size_t bytes) noexcept {
  if (!no_collapse.load(std::memory_order_relaxed)) {
    touch_each(base, bytes, huge_page_size);
    // Other failures pass: no huge page free now, a page that is in use.
    if (os::collapse(base, bytes) == EINVAL) no_collapse.store(true, std::memory_order_relaxed);
  }
  // Also after success, which says nothing where huge pages are of another size; over huge pages it
  // costs next to nothing.
  fault_in(base, bytes);
}

// A whole number of pages from the start of one.
void populate_here(std::byte* base, std::size_t bytes) noexcept {
  const auto address = reinterpret_cast<std::uintptr_t>(base);
  const std::size_t before = std::min(bytes, (huge_page_size - address % huge_page_size) % huge_page_size);
  const std::size_t huge = (bytes - before) / huge_page_size * huge_page_size;
  const std::size_t after = bytes - before - huge;
  if (before != 0) fault_in(base, before);
  if (huge != 0) make_huge(base + before, huge);
  if (after != 0) fault_in(base + before + huge, after);
}

/// Bytes that are divided among threads: each part but the last is `share` bytes, a number of huge pages.
struct division {
  std::byte* begin;
  std::size_t bytes;
  std::size_t share;
};

void populate_part(void* context, unsigned part) noexcept {
  const auto& all = *static_cast<const division*>(context);
  const std::size_t at = std::min(all.bytes, all.share * part);
  if (at < all.bytes) populate_here(all.begin + at, std::min(all.share, all.bytes - at));
}

}  // namespace

void mapping::populate(std::size_t offset, std::size_t bytes, unsigned threads) noexcept {
  if (!holds(offset, bytes)) return;
  const std::size_t page = os::page_size();
  const std::size_t begin = offset / page * page;
  const std::size_t end = (offset + bytes + page - 1) / page * page;  // the size is whole pages
  const unsigned parts = end - begin < threaded_from ? 1U : std::clamp(threads, 1U, os::most_parts);
  const std::size_t share = ((end - begin) / parts + huge_page_size - 1) / huge_page_size * huge_page_size;
  division all{data() + begin, end - begin, parts == 1 ? end - begin : share};
  os::run_parts(parts, populate_part, &all);
}

}  // namespace sharedmem
