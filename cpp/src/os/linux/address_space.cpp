/// \file
/// Linux: addresses and pages.
#include "os/linux/address_space.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <limits>
#include <stdexcept>

#include <sharedmem/error.hpp>

#include "os/pages.hpp"

// Newer than the C libraries that this is built with.
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // Linux 5.14
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1
#endif

namespace sharedmem::os {
namespace {

int result(int returned) noexcept { return returned == 0 ? 0 : errno; }

}  // namespace

std::string bytes_text(std::size_t bytes) { return std::to_string(bytes) + " bytes"; }

reservation::reservation(std::size_t bytes) : size_{bytes} {
  if (bytes == 0 || bytes > std::numeric_limits<std::size_t>::max() - alignment) {
    throw std::invalid_argument("a segment of " + bytes_text(bytes));
  }
  renew();
}

void reservation::renew() {
  const std::size_t all = size_ + alignment;
  void* at = ::mmap(nullptr, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED)
    throw error(errno, "mmap", bytes_text(all) + " of address space, see ulimit -v and SHAREDMEM_ARENA_SIZE");
  auto* first = static_cast<std::byte*>(at);
  const std::size_t past = reinterpret_cast<std::uintptr_t>(first) % alignment;
  const std::size_t before = past == 0 ? 0 : alignment - past;
  base_ = first + before;
  unmap(first, before);
  unmap(base_ + size_, alignment - before);
}

reservation::~reservation() {
  if (base_ != nullptr) unmap(base_, size_);
}

std::byte* reservation::taken() noexcept {
  std::byte* base = base_;
  base_ = nullptr;
  return base;
}

std::byte* reservation::give_back() noexcept {
  std::byte* base = taken();
  unmap(base, size_);
  return base;
}

void unmap(std::byte* base, std::size_t bytes) noexcept {
  if (bytes != 0) ::munmap(base, bytes);
}

void leave_out_of_dumps(std::byte* base, std::size_t bytes) {
  if (::madvise(base, bytes, MADV_DONTDUMP) != 0 && errno != EINVAL)
    throw error(errno, "madvise(MADV_DONTDUMP)", bytes_text(bytes));
}

// An emulator may accept MADV_REMOVE and do nothing: this is tested with a page of our own.
bool punching_works() noexcept {
  static std::atomic<int> known{0};  // 1: yes, 2: no
  int answer = known.load(std::memory_order_relaxed);
  if (answer != 0) return answer == 1;
  const std::size_t page = page_size();
  void* at = ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return false;  // not tested; tried again next time
  auto* byte = static_cast<volatile unsigned char*>(at);
  *byte = 1;
  const bool punched = ::madvise(at, page, MADV_REMOVE) == 0 && *byte == 0;
  ::munmap(at, page);
  known.store(punched ? 1 : 2, std::memory_order_relaxed);
  return punched;
}

bool punch(std::byte* base, std::size_t bytes) noexcept {
  return punching_works() && ::madvise(base, bytes, MADV_REMOVE) == 0;
}

bool forbid(std::byte* base, std::size_t bytes) noexcept { return ::mprotect(base, bytes, PROT_NONE) == 0; }

bool want_huge(std::byte* base, std::size_t bytes) noexcept {
  return ::madvise(base, bytes, MADV_HUGEPAGE) == 0;
}

int collapse(std::byte* base, std::size_t bytes) noexcept {
  return result(::madvise(base, bytes, MADV_COLLAPSE));
}

int fault_in(std::byte* base, std::size_t bytes) noexcept {
  return result(::madvise(base, bytes, MADV_POPULATE_WRITE));
}

std::size_t page_size() noexcept { return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }

}  // namespace sharedmem::os
