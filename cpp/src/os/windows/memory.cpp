/// Windows: how much memory can still be committed.
#include "os/memory.hpp"

#include <algorithm>

#include "os/windows/system.hpp"

namespace sharedmem {
namespace {

MEMORYSTATUSEX ask() noexcept {
  MEMORYSTATUSEX status{};
  status.dwLength = sizeof status;
  ::GlobalMemoryStatusEx(&status);
  return status;
}

}  // namespace

// What this process can still commit: RAM and paging files, less what is committed already, and at most what a job object
// allows.
memory_estimate available_memory() noexcept {
  const MEMORYSTATUSEX status = ask();
  return {.available = std::min(status.ullAvailPageFile, status.ullTotalPageFile),
          .total = status.ullTotalPageFile,
          .limit = "the commit limit"};
}

std::uint64_t address_space_left() noexcept {
  const MEMORYSTATUSEX status = ask();
  return sizeof(void*) == 4 ? status.ullAvailVirtual : UINT64_MAX;
}

std::uint64_t shmall_bytes() noexcept { return UINT64_MAX; }
std::uint64_t shmmax_bytes() noexcept { return UINT64_MAX; }

// A section takes 8 bytes of the kernel's paged pool for each of its pages, used or not, which is 1/512 of its size. So an
// arena is not larger than RAM, nor than 64 GiB.
std::uint64_t os::arena_wish() noexcept {
  constexpr std::uint64_t gib = std::uint64_t{1} << 30;
  const MEMORYSTATUSEX status = ask();
  return std::clamp(std::min<std::uint64_t>(status.ullTotalPhys, status.ullTotalPageFile), gib, 64 * gib);
}

const char* os::size_knobs() noexcept { return ", the size of the paging file"; }

}  // namespace sharedmem
